package jobs

import (
	"bytes"

	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

// Rekey moves an owner's jobs, and their places in every order, to another ID: the
// owner has changed its key.
func Rekey(tx *store.Tx, from, to mesh.PeerID) error {
	var mine []Job
	err := Each(tx, func(j Job) error {
		if j.Owner == from {
			mine = append(mine, j)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, j := range mine {
		j.Owner = to
		if j.Key != "" {
			if _, taken := Keyed(tx, to, j.Key); taken {
				j.Key = "" // what the new key asked for itself is the one that counts
			}
		}
		if err := put(tx, j); err != nil {
			return err
		}
	}
	for _, part := range []byte{indexQueued, indexDone, indexKey} {
		if err := movePart(tx, of(part, from), of(part, to)); err != nil {
			return err
		}
	}
	return nil
}

// movePart puts the keys under one prefix under another, but for those that are
// there already.
func movePart(tx *store.Tx, from, to []byte) error {
	type row struct{ k, v []byte }
	var rows []row
	err := under(tx, from, func(k, v []byte) (bool, error) {
		rows = append(rows, row{bytes.Clone(k), append([]byte{}, v...)})
		return true, nil
	})
	for _, r := range rows {
		if err == nil {
			err = tx.Delete(store.JobIndex, r.k)
		}
		next := append(bytes.Clone(to), r.k[len(from):]...)
		if err == nil && tx.Get(store.JobIndex, next) == nil {
			err = tx.Put(store.JobIndex, next, r.v)
		}
	}
	return err
}

// Rekeyed makes the runs under way follow once Rekey is on disk.
func (q *Queue) Rekeyed(from, to mesh.PeerID) {
	q.mu.Lock()
	for _, r := range q.live {
		if r.job.Owner == from {
			r.job.Owner = to
		}
	}
	if n := q.held[from]; n > 0 {
		q.held[to] += n
		delete(q.held, from)
	}
	if q.last == from {
		q.last = to
	}
	q.mu.Unlock()
	q.notify()
	q.Kick()
}
