package receipt

import (
	"bytes"

	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

// Rekey moves a peer's account to another ID: the peer has changed its key. The
// receipts themselves are signed and stay as they are.
func Rekey(tx *store.Tx, from, to mesh.PeerID) error {
	for _, role := range []Role{Asked, Ran, Own} {
		if err := moveOrder(tx, queue(role, from), queue(role, to)); err != nil {
			return err
		}
	}
	if tx.Get(store.Accounts, []byte(from)) == nil {
		return nil
	}
	a, err := Get(tx, from)
	if err != nil {
		return err
	}
	have, err := Get(tx, to)
	if err != nil {
		return err
	}
	a.Peer = to
	a.Theirs.add(have.Theirs)
	a.Ours.add(have.Ours)
	a.KeptAsked += have.KeptAsked
	a.KeptRan += have.KeptRan
	a.Gone = plus(a.Gone, have.Gone)
	a.Due = a.Due || have.Due
	if err := tx.Delete(store.Accounts, []byte(from)); err != nil {
		return err
	}
	return put(tx, a)
}

// moveOrder puts the receipts of one line into another.
func moveOrder(tx *store.Tx, from, to []byte) error {
	var keys [][]byte
	err := tx.Each(store.ReceiptOrder, from, func(k, _ []byte) (bool, error) {
		mine := bytes.HasPrefix(k, from)
		if mine {
			keys = append(keys, bytes.Clone(k))
		}
		return mine, nil
	})
	for _, k := range keys {
		if err == nil {
			err = tx.Delete(store.ReceiptOrder, k)
		}
		if err == nil {
			err = tx.Put(store.ReceiptOrder, append(bytes.Clone(to), k[len(from):]...), nil)
		}
	}
	return err
}
