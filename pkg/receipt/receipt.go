// Package receipt keeps what peers state about the jobs that they ran for each
// other, on both sides: signed receipts, whether they fit what was received, and the
// sums of who used what of whom. It never touches the network and runs nothing.
package receipt

import (
	"encoding/binary"
	"time"

	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
	"peercompute/pkg/wire"
)

// Role says which side of a run this node was on.
type Role string

// The roles.
const (
	Asked Role = "asked" // another peer ran it for this node
	Ran   Role = "ran"   // this node ran it for another peer
	Own   Role = "own"   // this node ran it for its own person
)

// MaxKept is how many receipts are kept of one role and peer; the oldest go first.
// What they add up to stays in the peer's account.
const MaxKept = 1000

// Record is a receipt as it is kept.
type Record struct {
	Role     Role      `json:"role"`
	Envelope []byte    `json:"envelope"` // as signed; Open reads it
	Added    time.Time `json:"added"`
	// Signed is what the envelope says, where it was opened or sealed here already.
	Signed *wire.Receipt `json:"-"`
	// Flaw says in what the receipt contradicts what this node sent or received.
	// Such a receipt is evidence and counts for nothing.
	Flaw string `json:"flaw,omitempty"`
	// Spec is what was asked for, which repeating the run takes.
	Spec     *mesh.Spec     `json:"spec,omitempty"`
	Verified []Verification `json:"verified,omitempty"` // the last few
}

// Open verifies and reads the envelope, unless that is done already.
func (rec Record) Open() (*wire.Receipt, error) {
	if rec.Signed != nil {
		return rec.Signed, nil
	}
	return wire.OpenReceipt(rec.Envelope)
}

// Verification is what came of repeating a run elsewhere.
type Verification struct {
	By      mesh.PeerID     `json:"by"`
	At      time.Time       `json:"at"`
	Receipt mesh.WorkloadID `json:"receipt"` // of the repeated run
	Differs []string        `json:"differs,omitempty"`
}

const maxVerifications = 16

// counterpart is whose account a receipt goes to.
func counterpart(role Role, r *wire.Receipt) mesh.PeerID {
	if role == Asked {
		return r.Runner
	}
	return r.Asker
}

// Add keeps a receipt and counts it. One that is kept already is not counted again.
func Add(tx *store.Tx, rec Record) error {
	r, err := rec.Open()
	if err != nil {
		return err
	}
	key := []byte(r.Job)
	if tx.Get(store.Receipts, key) != nil {
		return nil
	}
	if err := tx.PutJSON(store.Receipts, key, rec); err != nil {
		return err
	}
	peer := counterpart(rec.Role, r)
	line := queue(rec.Role, peer)
	if err := tx.Put(store.ReceiptOrder, position(line, rec.Added, r.Job), nil); err != nil {
		return err
	}
	a, err := Get(tx, peer)
	if err != nil {
		return err
	}
	kept := &a.KeptAsked
	sum := &a.Theirs
	if rec.Role != Asked {
		kept, sum = &a.KeptRan, &a.Ours
	}
	*kept++
	if rec.Flaw == "" && rec.Role != Own {
		sum.add(Sum{Jobs: 1, Fuel: r.Fuel})
	}
	for ; *kept > MaxKept; *kept-- {
		if err := dropOldest(tx, line); err != nil {
			return err
		}
	}
	return put(tx, a)
}

// The order of receipts is kept as keys: role, peer, time, job. The oldest of a role
// and peer comes first.
func queue(role Role, peer mesh.PeerID) []byte {
	b := append([]byte(role), 0)
	return append(append(b, byte(len(peer))), peer...)
}

func position(line []byte, at time.Time, job mesh.WorkloadID) []byte {
	b := binary.BigEndian.AppendUint64(append([]byte(nil), line...), uint64(at.UnixNano()))
	return append(b, job...)
}

func dropOldest(tx *store.Tx, line []byte) error {
	var first []byte
	err := tx.Each(store.ReceiptOrder, line, func(k, _ []byte) (bool, error) {
		first = append([]byte(nil), k...)
		return false, nil
	})
	if err != nil || len(first) < len(line)+8 || string(first[:len(line)]) != string(line) {
		return err
	}
	if err := tx.Delete(store.Receipts, first[len(line)+8:]); err != nil {
		return err
	}
	return tx.Delete(store.ReceiptOrder, first)
}

// Find reads a receipt; mesh.NotFound if it is not kept (any more).
func Find(tx *store.Tx, id mesh.WorkloadID) (Record, *wire.Receipt, error) {
	var rec Record
	ok, err := tx.GetJSON(store.Receipts, []byte(id), &rec)
	if err == nil && !ok {
		err = mesh.Errorf(mesh.NotFound, "there is no receipt %s here", id).WithHint("list them with: peerctl receipts ls")
	}
	if err != nil {
		return rec, nil, err
	}
	r, err := wire.OpenReceipt(rec.Envelope)
	return rec, r, err
}

// Each calls fn for every receipt, in no particular order.
func Each(tx *store.Tx, fn func(Record, *wire.Receipt) error) error {
	return tx.Each(store.Receipts, nil, func(k, _ []byte) (bool, error) {
		rec, r, err := Find(tx, mesh.WorkloadID(k))
		if err == nil {
			err = fn(rec, r)
		}
		return err == nil, err
	})
}

// Dispute notes that a receipt contradicts what was received later. It counts for
// nothing from then on, in the account of peer, whose key may have changed since.
func Dispute(tx *store.Tx, id mesh.WorkloadID, peer mesh.PeerID, flaw string) error {
	rec, r, err := Find(tx, id)
	if err != nil || rec.Flaw != "" {
		return err
	}
	rec.Flaw = flaw
	if err := tx.PutJSON(store.Receipts, []byte(id), rec); err != nil || rec.Role == Own {
		return err
	}
	a, err := Get(tx, peer)
	if err != nil {
		return err
	}
	sum := &a.Theirs
	if rec.Role != Asked {
		sum = &a.Ours
	}
	sum.Jobs -= min(1, sum.Jobs)
	sum.Fuel -= min(r.Fuel, sum.Fuel)
	return put(tx, a)
}

// Verified notes what came of repeating a run.
func Verified(tx *store.Tx, id mesh.WorkloadID, v Verification) error {
	rec, _, err := Find(tx, id)
	if err != nil {
		return err
	}
	rec.Verified = append(rec.Verified, v)
	rec.Verified = rec.Verified[max(0, len(rec.Verified)-maxVerifications):]
	return tx.PutJSON(store.Receipts, []byte(id), rec)
}
