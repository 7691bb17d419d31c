package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"peercompute/pkg/jobs"
	"peercompute/pkg/mesh"
	"peercompute/pkg/receipt"
	"peercompute/pkg/store"
)

// This file makes queued jobs follow when their owner, or the peer that they are
// queued on, changes its key.

// rekeyJobs moves the jobs that are queued here, their inputs, and what is known of
// those that this node queued elsewhere.
func (n *Node) rekeyJobs(tx *store.Tx, from, to mesh.PeerID) error {
	n.mu.Lock()
	n.moving = to
	n.mu.Unlock()
	if err := jobs.Rekey(tx, from, to); err != nil {
		return err
	}
	if err := n.linkInputs(from, to); err != nil {
		return fmt.Errorf("cannot hand over the inputs of queued jobs: %w", err)
	}
	elsewhere := map[string]asked{}
	err := tx.Each(store.AskedJobs, nil, func(k, _ []byte) (bool, error) {
		a, _, err := getAsked(tx, mesh.WorkloadID(k))
		if a.Peer == from {
			a.Peer = to
			elsewhere[string(k)] = a
		}
		return err == nil, err
	})
	for _, a := range elsewhere {
		if err == nil {
			err = putAsked(tx, a)
		}
	}
	return err
}

// rekeyedJobs lets the queue follow once that is on disk.
func (n *Node) rekeyedJobs(from, to mesh.PeerID) {
	n.queue.Rekeyed(from, to)
	if err := n.forgetInputs(from); err != nil {
		n.log.Warn("cannot remove the inputs under a former key", "err", err) // tidyInputs does
	}
}

// isMoving reports whether p is the new ID of somebody whose key is just changing:
// what it has is on disk already, and the trust list follows in a moment.
func (n *Node) isMoving(p mesh.PeerID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return p == n.moving
}

// linkInputs gives the inputs of one owner to another too. Should the transaction
// around it fail, that is undone by tidyInputs.
func (n *Node) linkInputs(from, to mesh.PeerID) error {
	have, err := os.ReadDir(n.inputDir(from))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	dir := n.inputDir(to)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, f := range have {
		if !strings.HasSuffix(f.Name(), inputExt) {
			continue // being written
		}
		err := os.Link(filepath.Join(n.inputDir(from), f.Name()), filepath.Join(dir, f.Name()))
		if err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := syncDir(d); err != nil {
			return err
		}
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// openInput opens the input of a job that runs; its owner may change its key
// meanwhile.
func (n *Node) openInput(owner mesh.PeerID, digest string) (*os.File, error) {
	for {
		now := n.m.Trust.Resolve(owner)
		inputs, err := n.queuedInputs(now)
		if err != nil {
			return nil, err
		}
		f, err := inputs.Open(digest)
		if err == nil || n.m.Trust.Resolve(owner) == now {
			return f, err
		}
	}
}

// tidyInputs removes inputs of nobody: of former keys, and of changes of a key that
// came to nothing.
func (n *Node) tidyInputs() error {
	keep := map[string]bool{filepath.Base(n.inputDir(n.m.Key.ID)): true}
	for _, g := range n.m.Trust.All() {
		keep[filepath.Base(n.inputDir(g.Peer))] = true
	}
	err := n.m.Store.View(func(tx *store.Tx) error {
		return jobs.Each(tx, func(j jobs.Job) error {
			keep[filepath.Base(n.inputDir(j.Owner))] = true
			return nil
		})
	})
	if err != nil {
		return err
	}
	in := filepath.Join(n.queueDir(), "in")
	dirs, err := os.ReadDir(in)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, d := range dirs {
		if err == nil && !keep[d.Name()] {
			err = os.RemoveAll(filepath.Join(in, d.Name()))
		}
	}
	return err
}

// addReceipt keeps a receipt that p, under that key, is the other party of. Its
// account is that of the key that p has now.
func (n *Node) addReceipt(tx *store.Tx, rec receipt.Record, p mesh.PeerID) error {
	if err := receipt.Add(tx, rec); err != nil {
		return err
	}
	if now := n.m.Trust.Resolve(p); now != p {
		return receipt.Rekey(tx, p, now)
	}
	return nil
}
