// Package store owns a node's state file: one bbolt database with one writer, a
// schema version and ordered migrations. Acknowledged means on disk: Update
// returns nil only after fsync. After a failed write it never writes again,
// because what the disk holds is then unknown.
package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	bolt "go.etcd.io/bbolt"

	"peercompute/pkg/mesh"
)

// FileName is the state file's name in a node's home.
const FileName = "state.db"

// Bucket names one table. The set is fixed here, so that a reader of this file
// sees all that a node remembers. Those that are missing are made when the file is
// opened; content that must move or change takes a migration.
type Bucket string

// The buckets and who owns them.
const (
	Meta        Bucket = "meta"         // store
	TrustLog    Bucket = "trust_log"    // trust: sequence number → entry
	TrustTasks  Bucket = "trust_tasks"  // trust: removals not finished
	Invites     Bucket = "invites"      // trust: invite ID → record
	Nonces      Bucket = "nonces"       // admission: peer, nonce → outcome
	NonceExpiry Bucket = "nonce_expiry" // admission: expiry, peer, nonce → nothing
	Workloads   Bucket = "workloads"    // supervisor: workload ID → record
	Revisions   Bucket = "revisions"    // supervisor: workload ID, number → revision
	Remote      Bucket = "remote"       // node: workloads that this node deployed elsewhere
	Routes      Bucket = "routes"       // gateway: label → route
	Denied      Bucket = "denied"       // trust: peer that knocked and was refused → until when
	Lend        Bucket = "lend"         // node: what the owner lends, and when
	Audit       Bucket = "audit"        // audit: sequence number → hash, entry
	Fuel        Bucket = "fuel"         // admission: peer → what it has burnt today
	ServerFuel  Bucket = "server_fuel"  // node: run of a server → what it has burnt today

	Receipts     Bucket = "receipts"      // receipt: job ID → record
	ReceiptOrder Bucket = "receipt_order" // receipt: role, peer, time, job ID → nothing
	Accounts     Bucket = "accounts"      // receipt: peer → what was used of each other
	Jobs         Bucket = "jobs"          // jobs: job ID → what is queued here, and what came of it
	JobIndex     Bucket = "job_index"     // jobs: their order (see jobs/table.go)
	Outputs      Bucket = "outputs"       // jobs: job ID → small outputs
	AskedJobs    Bucket = "asked_jobs"    // node: jobs that this node queued, here and elsewhere
	Crons        Bucket = "crons"         // cron: name → schedule

	Images  Bucket = "images"  // node: owner, image ID → an image that was pushed here
	Volumes Bucket = "volumes" // node: volume ID → a volume here

	Secrets Bucket = "secrets" // node: owner, name → a secret, encrypted

	Witness Bucket = "witness" // heartbeat: peer → the last seen of its logs
	Alarms  Bucket = "alarms"  // alarm: number → what the owner must look at
	Keys    Bucket = "keys"    // member: number → rotation of this node's key; number, peer → who is to be told
)

var buckets = [...]Bucket{
	Meta, TrustLog, TrustTasks, Invites, Nonces, NonceExpiry, Workloads, Revisions, Remote, Routes, Lend, Audit, Fuel, ServerFuel, Witness, Alarms, Denied, Keys,
	Receipts, ReceiptOrder, Accounts, Jobs, JobIndex, Outputs, AskedJobs, Crons, Images, Volumes, Secrets,
}

var (
	keyVersion     = []byte("version")
	keyIncarnation = []byte("incarnation")
	keyNode        = []byte("node")
)

// Store is an open state file.
type Store struct {
	db   *bolt.DB
	from int     // the version that the file had; 0 = it was new
	old  error   // why it is not the latest, where that was accepted
	mark *mark   // says which transaction was the last
	sum  summing // of what the file holds; the writer's

	queue  chan *update
	stop   chan struct{}
	done   chan struct{}
	failed chan struct{}

	incarnation [16]byte // that the file began with; its mark names it too

	mu   sync.Mutex
	life [16]byte // the incarnation as of now (see Renew)
	err  error    // set once; the reason why nothing is written any more
}

// Tx is one transaction. It is valid only inside the function it was given to.
type Tx struct {
	tx  *bolt.Tx
	sum *summing // nil = read only
}

type update struct {
	fn   func(*Tx) error
	err  error
	done chan struct{}
}

// From is the schema version that the file had when it was opened; 0 if it was new.
func (s *Store) From() int { return s.from }

// Bind ties the file to a node. The first call records the ID; later ones fail
// with mesh.Conflict if the file belongs to another node.
func (s *Store) Bind(ctx context.Context, id mesh.PeerID) error {
	bound := false
	err := s.View(func(tx *Tx) error {
		have := tx.Get(Meta, keyNode)
		if bound = have != nil; bound && string(have) != string(id) {
			return mesh.Errorf(mesh.Conflict, "the state file belongs to node %s, the key to node %s", mesh.PeerID(have), id).
				WithHint("put back the key and state file that belong together")
		}
		return nil
	})
	if err != nil || bound {
		return err
	}
	return s.Update(ctx, func(tx *Tx) error { return tx.Put(Meta, keyNode, []byte(id)) })
}

// Bound reports whether the file is tied to a node yet.
func (s *Store) Bound() (bound bool, err error) {
	err = s.View(func(tx *Tx) error { bound = tx.Get(Meta, keyNode) != nil; return nil })
	return bound, err
}

// Node is the node that the file is tied to; empty if it is not yet.
func (s *Store) Node() (id mesh.PeerID, err error) {
	err = s.View(func(tx *Tx) error { id = mesh.PeerID(tx.Get(Meta, keyNode)); return nil })
	return id, err
}

// Rebind ties the file to the same node under another ID, in the transaction tx.
func (t *Tx) Rebind(id mesh.PeerID) error { return t.Put(Meta, keyNode, []byte(id)) }

// Failed is closed when a write has failed. The process should end: nothing more
// will be written or acknowledged.
func (s *Store) Failed() <-chan struct{} { return s.failed }

// Err says why Failed is closed.
func (s *Store) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Close waits for the writer and closes the file.
func (s *Store) Close() error {
	close(s.stop)
	<-s.done
	return errors.Join(s.db.Close(), s.mark.close())
}

// View runs fn on a snapshot.
func (s *Store) View(fn func(*Tx) error) error {
	return s.db.View(func(tx *bolt.Tx) error { return fn(&Tx{tx: tx}) })
}

// maxGroup bounds how many updates share one fsync.
const maxGroup = 256

// Update runs fn in a transaction and returns after it is on disk. Concurrent
// updates share a transaction and its fsync; each still sees those before it, and
// one that fails changes nothing. fn may run more than once, so it must only
// touch tx and variables that it sets anew each time.
func (s *Store) Update(ctx context.Context, fn func(*Tx) error) error {
	u := &update{fn: fn, done: make(chan struct{})}
	select {
	case s.queue <- u:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.stop:
		return mesh.Errorf(mesh.Unavailable, "the node is stopping")
	case <-s.failed:
		return s.writeError()
	}
	<-u.done // once queued the outcome is decided: never abandon it half-known
	return u.err
}

func (s *Store) write() {
	defer close(s.done)
	for {
		select {
		case <-s.stop:
			return
		case u := <-s.queue:
			group := []*update{u}
			for len(group) < maxGroup {
				select {
				case more := <-s.queue:
					group = append(group, more)
					continue
				default:
				}
				break
			}
			s.commit(group)
			if s.Err() != nil {
				return
			}
		}
	}
}

// errFn tells a refusal by an update's own function from a failure to write.
type errFn struct{ at int }

func (errFn) Error() string { return "refused by its function" }

func (s *Store) commit(group []*update) {
	for len(group) > 0 {
		next, txid := s.sum, uint64(0)
		err := s.db.Update(func(tx *bolt.Tx) error {
			txid = uint64(tx.ID())
			for i, u := range group {
				if u.err = u.fn(&Tx{tx, &next}); u.err != nil {
					return errFn{i}
				}
			}
			if next.sum == s.sum.sum {
				return nil
			}
			return next.save(tx)
		})
		var refused errFn
		switch {
		case errors.As(err, &refused):
			// One refused: it is done, and the rest start again without it.
			close(group[refused.at].done)
			group = append(group[:refused.at:refused.at], group[refused.at+1:]...)
			continue
		case full(err) && s.last() == txid-1:
			err = withoutSpace(err) // nothing of it is in the file
		case err != nil:
			s.fail(err)
			err = s.writeError()
		default:
			s.sum = next
			if err := s.mark.set(txid); err != nil && !full(err) {
				s.fail(err) // what is committed is acknowledged, and nothing after it
			}
		}
		for _, u := range group {
			u.err = err
			close(u.done)
		}
		return
	}
}

// last is the last transaction that is in the file.
func (s *Store) last() (txid uint64) {
	if s.db.View(func(tx *bolt.Tx) error { txid = uint64(tx.ID()); return nil }) != nil {
		return 0
	}
	return txid
}

func (s *Store) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
		close(s.failed)
	}
}

func (s *Store) writeError() error {
	return mesh.Errorf(mesh.Internal, "the state file cannot be written").
		WithHint("check the disk (space, errors in the kernel log), then start peerd again").Because(s.Err())
}

// Get returns the value of a key, or nil. It is valid only inside the transaction.
func (t *Tx) Get(b Bucket, key []byte) []byte { return t.tx.Bucket([]byte(b)).Get(key) }

// Put sets a key.
func (t *Tx) Put(b Bucket, key, value []byte) error {
	to := t.tx.Bucket([]byte(b))
	return t.change(func() { t.sum.replace(to, b, key, value, false) }, func() error { return to.Put(key, value) })
}

// Append is Put for a key greater than all others, in a bucket that only grows at
// its end: its pages are filled up instead of being left half empty.
func (t *Tx) Append(b Bucket, key, value []byte) error {
	t.tx.Bucket([]byte(b)).FillPercent = 1
	return t.Put(b, key, value)
}

// Delete removes a key; one that is not there is no error.
func (t *Tx) Delete(b Bucket, key []byte) error {
	from := t.tx.Bucket([]byte(b))
	return t.change(func() { t.sum.replace(from, b, key, nil, true) }, func() error { return from.Delete(key) })
}

// change makes a change and accounts for it, or neither.
func (t *Tx) change(account func(), do func() error) error {
	if t.sum == nil {
		return do() // refused: the transaction only reads
	}
	before := t.sum.sum
	account()
	err := do()
	if err != nil {
		t.sum.sum = before
	}
	return err
}

// GetJSON decodes the value of a key into v and reports whether there was one.
func (t *Tx) GetJSON(b Bucket, key []byte, v any) (bool, error) {
	data := t.Get(b, key)
	if data == nil {
		return false, nil
	}
	if err := json.Unmarshal(data, v); err != nil {
		return true, mesh.Errorf(mesh.Internal, "a record in the state file is damaged").Because(fmt.Errorf("%s/%x: %w", b, key, err))
	}
	return true, nil
}

// PutJSON sets a key to the JSON of v.
func (t *Tx) PutJSON(b Bucket, key []byte, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return t.Put(b, key, data)
}

// Each calls fn for every key from the one at or after start, in order, until fn
// returns false or an error. fn must not change the bucket.
func (t *Tx) Each(b Bucket, start []byte, fn func(k, v []byte) (bool, error)) error {
	c := t.tx.Bucket([]byte(b)).Cursor()
	for k, v := c.Seek(start); k != nil; k, v = c.Next() {
		more, err := fn(k, v)
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// First returns the least key of a bucket and its value, or nil.
func (t *Tx) First(b Bucket) (k, v []byte) { return t.tx.Bucket([]byte(b)).Cursor().First() }

// Last returns the greatest key of a bucket and its value, or nil.
func (t *Tx) Last(b Bucket) (k, v []byte) { return t.tx.Bucket([]byte(b)).Cursor().Last() }

// Count is the number of keys in a bucket. It walks the bucket.
func (t *Tx) Count(b Bucket) int { return t.tx.Bucket([]byte(b)).Stats().KeyN }
