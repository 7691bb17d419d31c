package member

import (
	"context"
	"encoding/binary"
	"time"

	"peercompute/pkg/identity"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
	"peercompute/pkg/wire"
)

// This file is what a node remembers of the changes of its own key.

// keyChange is one of them, as it is kept in store.Keys under its number.
type keyChange struct {
	Seq         uint64      `json:"seq"`
	Old         mesh.PeerID `json:"old"`
	New         mesh.PeerID `json:"new"`
	Step        wire.Step   `json:"step"`
	Began       time.Time   `json:"began"`
	Until       time.Time   `json:"until"` // until when peers take the old key too
	Compromised bool        `json:"compromised,omitempty"`
	Switched    bool        `json:"switched,omitempty"` // the new key is the node's: the point of no return
	Closed      bool        `json:"closed,omitempty"`   // nobody is told any more, and the old key is deleted
}

// tellUntil is when the node gives up on peers that were not told. They find out
// when they dial this node.
func (c keyChange) tellUntil() time.Time { return c.Began.Add(wire.MaxOverlap) }

func changeKey(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }

func owedKey(seq uint64, p mesh.PeerID) []byte { return append(changeKey(seq), p...) }

func (c keyChange) put(tx *store.Tx) error { return tx.PutJSON(store.Keys, changeKey(c.Seq), c) }

// changes lists them all, the oldest first.
func (m *Member) changes() (out []keyChange, err error) {
	err = m.Store.View(func(tx *store.Tx) error {
		out, err = readChanges(tx)
		return err
	})
	return out, err
}

// KeyChanging reports whether this node's key is being changed. A peer that was told may
// count what is this node's as the new key's already, and say to the old one that it has
// nothing.
func (m *Member) KeyChanging() bool {
	all, err := m.changes()
	if err != nil {
		m.Log.Error("cannot read the changes of the key", "err", err)
		return true
	}
	if len(all) == 0 {
		return false
	}
	last := all[len(all)-1]
	return !last.Switched || last.New != m.Key.ID
}

func readChanges(tx *store.Tx) (out []keyChange, err error) {
	err = tx.Each(store.Keys, nil, func(k, _ []byte) (bool, error) {
		if len(k) != 8 {
			return true, nil // who is to be told
		}
		var c keyChange
		_, err := tx.GetJSON(store.Keys, k, &c)
		out = append(out, c)
		return true, err
	})
	return out, err
}

// untold lists the peers that were trusted when the key changed, still are, and have
// not acknowledged the change.
func (m *Member) untold(seq uint64) (out []mesh.PeerID, err error) {
	err = m.Store.View(func(tx *store.Tx) error {
		return tx.Each(store.Keys, changeKey(seq), func(k, _ []byte) (bool, error) {
			if len(k) < 8 || binary.BigEndian.Uint64(k) != seq {
				return false, nil
			}
			if len(k) == 8 {
				return true, nil
			}
			if p := m.Trust.Resolve(mesh.PeerID(k[8:])); m.Trust.Listed(p) {
				out = append(out, p)
			}
			return true, nil
		})
	})
	return out, err
}

// acknowledged records that a peer knows the node's key of that change, and so all
// that came before.
func (m *Member) acknowledged(ctx context.Context, seq uint64, p mesh.PeerID) error {
	return m.Store.Update(ctx, func(tx *store.Tx) error {
		all, err := readChanges(tx)
		for _, c := range all {
			if c.Closed || c.Seq > seq {
				continue
			}
			for _, was := range append(m.Trust.Former(p), p) { // it may have changed its own key since
				if err := tx.Delete(store.Keys, owedKey(c.Seq, was)); err != nil {
					return err
				}
			}
		}
		return err
	})
}

// lineage is what is told of a change: it and those before it.
func lineage(all []keyChange, seq uint64) wire.Lineage {
	var l wire.Lineage
	for _, c := range all {
		if c.Seq <= seq {
			l.Steps = append(l.Steps, c.Step)
		}
	}
	l.Steps = l.Steps[max(0, len(l.Steps)-wire.MaxSteps):]
	return l
}

// loadKey finds the node's key. Where a change of keys was cut short behind the
// point of no return, it is finished first.
func (m *Member) loadKey() error {
	bound, err := m.Store.Node()
	if err != nil {
		return err
	}
	all, err := m.changes()
	if err != nil {
		return err
	}
	var seq uint64
	m.former = map[mesh.PeerID]bool{}
	for _, c := range all {
		seq = c.Seq
		if c.Switched {
			m.former[c.Old] = true
		}
	}
	if m.Key, err = identity.Settle(m.Home, bound, seq); err != nil {
		return err
	}
	m.Origin = m.Key.ID
	if len(all) > 0 && all[0].Switched {
		m.Origin = all[0].Old
	}
	return nil
}

// Mine reports whether this node is, or was, the one with that ID.
func (m *Member) Mine(p mesh.PeerID) bool { return p == m.Key.ID || m.former[p] }
