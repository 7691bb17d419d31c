// Package supervisor makes what runs equal to what is desired. Desired state is
// in the store; nobody else calls a driver. That is why peerd may be killed at any
// line: at the next start it adopts what still runs, starts what does not, and
// ends what nobody owns.
package supervisor

import (
	"peercompute/pkg/admission"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

// Desired is what the owner wants of a workload.
type Desired string

// The wishes.
const (
	Run    Desired = "run"
	Stop   Desired = "stop"
	Remove Desired = "remove" // and then the record goes too
)

// Record is a workload in the store.
type Record struct {
	Workload mesh.Workload     `json:"workload"`
	Desired  Desired           `json:"desired"`
	Publish  *mesh.Publication `json:"publish,omitempty"` // the wish for a public name, as of now
	Last     mesh.Status       `json:"last"`              // the last final status, or zero
	// Restart counts the new runs that were asked for, Restarted those of them that were
	// begun: while they differ, what runs is to be ended first.
	Restart   uint64 `json:"restart,omitempty"`
	Restarted uint64 `json:"restarted,omitempty"`

	// Of updates: see update.go.
	Run      mesh.WorkloadID `json:"run,omitempty"`      // under which its runtime knows the revision that serves; empty = the workload's ID
	Revision int             `json:"revision,omitempty"` // that serves; 0 = 1
	Answered bool            `json:"answered,omitempty"` // that revision was ready once: it is not given up any more
	Given    int             `json:"given,omitempty"`    // the highest number that a revision has had; 0 = 1
	Next     *Next           `json:"next,omitempty"`     // the revision that is to take over
	Retired  []Retired       `json:"retired,omitempty"`  // runs on their way out
}

// Holds reports whether the workload uses resources, or may again by itself.
func (r Record) Holds() bool { return r.Desired == Run && !r.Last.State.Final() }

// Again asks for a new run. The workload holds its share from now on, also while nothing
// of it has begun.
func (r *Record) Again() {
	r.Desired, r.Last = Run, mesh.Status{}
	r.Restart++
}

// Put writes a record; call Kick after the transaction is on disk.
func Put(tx *store.Tx, r Record) error {
	return tx.PutJSON(store.Workloads, []byte(r.Workload.ID), r)
}

// Get reads a record; mesh.NotFound if there is none.
func Get(tx *store.Tx, id mesh.WorkloadID) (Record, error) {
	var r Record
	ok, err := tx.GetJSON(store.Workloads, []byte(id), &r)
	if err == nil && !ok {
		err = mesh.Errorf(mesh.NotFound, "there is no workload %s here", id).WithHint("list them with: peerctl ps")
	}
	return r, err
}

// Each calls fn for every record.
func Each(tx *store.Tx, fn func(Record) error) error {
	return tx.Each(store.Workloads, nil, func(k, _ []byte) (bool, error) {
		r, err := Get(tx, mesh.WorkloadID(k))
		if err == nil {
			err = fn(r)
		}
		return err == nil, err
	})
}

// Usage sums what peer and all peers together hold. Workloads of those that counts
// does not name are left out; nil counts all. What is on its way in or out counts
// beside what serves.
func Usage(tx *store.Tx, peer mesh.PeerID, counts func(owner mesh.PeerID) bool) (u admission.Usage, err error) {
	err = Each(tx, func(r Record) error {
		if counts == nil || counts(r.Workload.Owner) {
			r.AddTo(&u.Host)
			if r.Workload.Owner == peer {
				r.AddTo(&u.Peer)
			}
		}
		return nil
	})
	return u, err
}
