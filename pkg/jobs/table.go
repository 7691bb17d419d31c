package jobs

import (
	"bytes"
	"encoding/binary"
	"time"

	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

// This file is the queue as it is on disk. Each function belongs into a transaction.
//
// store.Jobs has the jobs by their ID. store.JobIndex has what order takes:
//
//	q owner submitted ID → nothing      the queue of an owner, oldest first
//	d owner ended     ID → bytes kept   its finished jobs, oldest first
//	k owner key          → ID           its keys
const (
	indexQueued = 'q'
	indexDone   = 'd'
	indexKey    = 'k'
)

// of is the beginning of an owner's keys in a part of the index.
func of(part byte, owner mesh.PeerID) []byte {
	return append([]byte{part, byte(len(owner))}, owner...)
}

func place(part byte, j Job, at time.Time) []byte {
	return append(binary.BigEndian.AppendUint64(of(part, j.Owner), uint64(at.UnixNano())), j.ID...)
}

// idOf is the job that a place belongs to.
func idOf(k []byte, owner mesh.PeerID) mesh.WorkloadID {
	return mesh.WorkloadID(k[2+len(owner)+8:])
}

// Get reads a job; mesh.NotFound if there is none.
func Get(tx *store.Tx, id mesh.WorkloadID) (Job, error) {
	var j Job
	ok, err := tx.GetJSON(store.Jobs, []byte(id), &j)
	if err == nil && !ok {
		err = mesh.Errorf(mesh.NotFound, "there is no job %s here", id).WithHint("list them with: peerctl job ls")
	}
	return j, err
}

func put(tx *store.Tx, j Job) error { return tx.PutJSON(store.Jobs, []byte(j.ID), j) }

// Each calls fn for every job, in no particular order.
func Each(tx *store.Tx, fn func(Job) error) error {
	return tx.Each(store.Jobs, nil, func(k, _ []byte) (bool, error) {
		j, err := Get(tx, mesh.WorkloadID(k))
		if err == nil {
			err = fn(j)
		}
		return err == nil, err
	})
}

// under calls fn for each key that begins with prefix.
func under(tx *store.Tx, prefix []byte, fn func(k, v []byte) (bool, error)) error {
	return tx.Each(store.JobIndex, prefix, func(k, v []byte) (bool, error) {
		if !bytes.HasPrefix(k, prefix) {
			return false, nil
		}
		return fn(k, v)
	})
}

func count(tx *store.Tx, prefix []byte) (n int, err error) {
	err = under(tx, prefix, func(_, _ []byte) (bool, error) { n++; return true, nil })
	return n, err
}

// submit queues a job. If the owner has one with the same key already, that one is
// returned instead.
func submit(tx *store.Tx, l Limits, j Job) (Job, error) {
	if j.Key != "" {
		if id, ok := Keyed(tx, j.Owner, j.Key); ok {
			return Get(tx, id)
		}
	}
	if tx.Get(store.Jobs, []byte(j.ID)) != nil {
		return Get(tx, j.ID)
	}
	mine, err := count(tx, of(indexQueued, j.Owner))
	if err != nil {
		return j, err
	}
	if mine >= l.Queued {
		return j, mesh.Errorf(mesh.Overloaded, "%d jobs of yours wait here already", mine).WithRule("jobs.queued").
			WithHint("try again when some have run; see them with: peerctl job ls")
	}
	all, err := count(tx, []byte{indexQueued})
	if err != nil {
		return j, err
	}
	if all >= l.QueuedAll {
		return j, mesh.Errorf(mesh.Overloaded, "%d jobs wait here already", all).WithRule("jobs.queued-all").
			WithHint("try again in a while, or another peer")
	}
	j.State = Queued
	if j.Key != "" {
		if err := tx.Put(store.JobIndex, append(of(indexKey, j.Owner), j.Key...), []byte(j.ID)); err != nil {
			return j, err
		}
	}
	if err := tx.Put(store.JobIndex, place(indexQueued, j, j.Submitted), nil); err != nil {
		return j, err
	}
	return j, put(tx, j)
}

// Keyed is the job of an owner that has a key; false if none has.
func Keyed(tx *store.Tx, owner mesh.PeerID, key string) (mesh.WorkloadID, bool) {
	id := tx.Get(store.JobIndex, append(of(indexKey, owner), key...))
	return mesh.WorkloadID(id), id != nil
}

// waiting lists the owners of queued jobs.
func waiting(tx *store.Tx) (owners []mesh.PeerID, err error) {
	next := []byte{indexQueued}
	for {
		var found []byte
		err := tx.Each(store.JobIndex, next, func(k, _ []byte) (bool, error) {
			found = append([]byte(nil), k...)
			return false, nil
		})
		if err != nil || len(found) < 2 || found[0] != indexQueued {
			return owners, err
		}
		end := 2 + int(found[1])
		owners = append(owners, mesh.PeerID(found[2:end]))
		next = after(found[:end])
	}
}

// after is the least key behind all that begin with prefix.
func after(prefix []byte) []byte {
	b := append([]byte(nil), prefix...)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i]++; b[i] != 0 {
			return b[:i+1]
		}
	}
	return append(b, 0xff)
}

// first is the job of an owner that waits longest; false if none does.
func first(tx *store.Tx, owner mesh.PeerID) (j Job, ok bool, err error) {
	err = under(tx, of(indexQueued, owner), func(k, _ []byte) (bool, error) {
		j, err = Get(tx, idOf(k, owner))
		ok = err == nil
		return false, err
	})
	return j, ok, err
}

// ahead is how many jobs of the owner are queued before j.
func ahead(tx *store.Tx, j Job) (n int, err error) {
	mine := place(indexQueued, j, j.Submitted)
	err = under(tx, of(indexQueued, j.Owner), func(k, _ []byte) (bool, error) {
		if bytes.Equal(k, mine) {
			return false, nil
		}
		n++
		return true, nil
	})
	return n, err
}

// begin moves a queued job into its run.
func begin(tx *store.Tx, now time.Time, j Job) (Job, error) {
	if err := tx.Delete(store.JobIndex, place(indexQueued, j, j.Submitted)); err != nil {
		return j, err
	}
	j.State, j.Started, j.Attempts = Running, now, j.Attempts+1
	return j, put(tx, j)
}

// requeue puts a job whose run was cut short back to where it was in the queue.
func requeue(tx *store.Tx, j Job) error {
	j.State, j.Started = Queued, time.Time{}
	if err := tx.Put(store.JobIndex, place(indexQueued, j, j.Submitted), nil); err != nil {
		return err
	}
	return put(tx, j)
}

// finish records what came of a job, and lets go of what is too much by now: it
// returns the jobs whose files may be removed once this is on disk.
func finish(tx *store.Tx, l Limits, j Job) (dropped []mesh.WorkloadID, err error) {
	if j.State == Queued {
		if err := tx.Delete(store.JobIndex, place(indexQueued, j, j.Submitted)); err != nil {
			return nil, err
		}
	}
	j.State = Done
	kept := binary.BigEndian.AppendUint64(nil, uint64(j.bytes()))
	if err := tx.Put(store.JobIndex, place(indexDone, j, j.Ended), kept); err != nil {
		return nil, err
	}
	if err := put(tx, j); err != nil {
		return nil, err
	}
	return prune(tx, l, j.Owner)
}

// prune holds an owner's finished jobs to the limits, the oldest first.
func prune(tx *store.Tx, l Limits, owner mesh.PeerID) (dropped []mesh.WorkloadID, err error) {
	type old struct {
		key  []byte
		size int64 // < 0: its outputs are gone already
	}
	var all []old
	var results int
	var total int64
	err = under(tx, of(indexDone, owner), func(k, v []byte) (bool, error) {
		o := old{append([]byte(nil), k...), -1}
		if len(v) == 8 {
			o.size = int64(binary.BigEndian.Uint64(v))
			results++
			total += o.size
		}
		all = append(all, o)
		return true, nil
	})
	for i := 0; err == nil && i < len(all); i++ {
		o, forget := all[i], len(all)-i > l.Records
		if o.size >= 0 && (forget || results > l.Results || total > l.ResultBytes) {
			results--
			total -= o.size
			dropped = append(dropped, idOf(o.key, owner))
			err = drop(tx, idOf(o.key, owner), o.key)
		}
		if err == nil && forget {
			err = remove(tx, idOf(o.key, owner), o.key)
		}
	}
	return dropped, err
}

// drop lets go of a job's outputs.
func drop(tx *store.Tx, id mesh.WorkloadID, done []byte) error {
	j, err := Get(tx, id)
	if err != nil {
		return err
	}
	for _, part := range parts {
		if err := tx.Delete(store.Outputs, outputKey(id, part)); err != nil {
			return err
		}
	}
	j.Dropped = true
	if err := put(tx, j); err != nil {
		return err
	}
	return tx.Put(store.JobIndex, done, nil)
}

// remove forgets a finished job.
func remove(tx *store.Tx, id mesh.WorkloadID, done []byte) error {
	j, err := Get(tx, id)
	if err != nil {
		return err
	}
	if j.Key != "" {
		if err := tx.Delete(store.JobIndex, append(of(indexKey, j.Owner), j.Key...)); err != nil {
			return err
		}
	}
	if err := tx.Delete(store.JobIndex, done); err != nil {
		return err
	}
	return tx.Delete(store.Jobs, []byte(id))
}
