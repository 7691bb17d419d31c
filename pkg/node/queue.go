package node

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"slices"

	"peercompute/pkg/admission"
	"peercompute/pkg/blob"
	"peercompute/pkg/driver"
	"peercompute/pkg/jobs"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
	"peercompute/pkg/supervisor"
	"peercompute/pkg/trust"
	"peercompute/pkg/wire"
)

// This file is the queue of jobs: who may put what into it, and how one is run.

// Bounds of the inputs that wait, in bytes.
const maxQueuedInputs = 64 << 20 // of one owner

const inputExt = ".in" // of the files that hold them

// openQueue prepares the queue; nothing runs yet.
func (n *Node) openQueue() (err error) {
	n.queue, err = jobs.New(jobs.Config{
		Store: n.m.Store, Dir: filepath.Join(n.queueDir(), "out"), Now: n.m.Now, Log: n.log,
		Admit: n.admitQueued, Undo: n.undoQueued, Release: n.releaseQueued, Execute: n.executeQueued,
	})
	if err == nil {
		err = n.tidyInputs()
	}
	return err
}

func (n *Node) queueDir() string { return filepath.Join(n.m.Home, "queue") }

func (n *Node) inputDir(owner mesh.PeerID) string {
	sum := sha256.Sum256([]byte(owner))
	return filepath.Join(n.queueDir(), "in", hex.EncodeToString(sum[:16]))
}

// queuedInputs are the inputs of an owner's queued jobs. Owners are apart: a digest
// gives nobody another one's bytes, nor the knowledge that they are here.
func (n *Node) queuedInputs(owner mesh.PeerID) (*blob.Store, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if s := n.waiting[owner]; s != nil {
		return s, nil
	}
	s, err := blob.Open(blob.Config{
		Dir: n.inputDir(owner), Noun: "input", Ext: inputExt, One: wire.MaxInput, Max: maxQueuedInputs, Hint: "submit the job again, which sends it along",
	})
	if err == nil {
		n.waiting[owner] = s
	}
	return s, err
}

// inputsInUse are the inputs that jobs of an owner still need.
func (n *Node) inputsInUse(owner mesh.PeerID) func() (map[string]bool, error) {
	return func() (map[string]bool, error) {
		used := map[string]bool{}
		err := n.m.Store.View(func(tx *store.Tx) error {
			return jobs.Each(tx, func(j jobs.Job) error {
				if j.Owner == owner && j.State != jobs.Done {
					used[j.Input] = true
				}
				return nil
			})
		})
		return used, err
	}
}

// forgetInputs removes what a peer had put here.
func (n *Node) forgetInputs(owner mesh.PeerID) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.waiting, owner)
	return os.RemoveAll(n.inputDir(owner))
}

// admitQueued makes what judges whether a queued job may run now.
func (n *Node) admitQueued(ctx context.Context) func(*store.Tx, jobs.Job) error {
	policy := n.policy(ctx)
	return func(tx *store.Tx, j jobs.Job) error {
		digest, err := wire.ParseDigest(j.Request)
		if err != nil {
			return err
		}
		var g trust.Grant
		if j.Owner != n.m.Key.ID {
			if _, locked := n.m.Trust.Locked(); locked {
				return mesh.Errorf(mesh.Unavailable, "this machine is locked down")
			}
			var ok bool
			if g, ok = n.m.Trust.Get(j.Owner); !ok && n.isMoving(j.Owner) {
				return mesh.Errorf(mesh.Unavailable, "the key of its owner is just changing")
			}
			if !ok {
				return mesh.Errorf(mesh.Untrusted, "the trust in the asker ended before it was the job's turn")
			}
		}
		w := workload(j)
		if h := n.hold(w); h.Level != supervisor.Free {
			return mesh.Errorf(mesh.Unavailable, "held: %s", h.Reason)
		}
		return n.admit(tx, policy, g, digest, w, w.Spec)
	}
}

func (n *Node) undoQueued(j jobs.Job) {
	if digest, err := wire.ParseDigest(j.Request); err == nil { // else it was never admitted
		n.forget(digest)
	}
}

func (n *Node) releaseQueued(j jobs.Job) {
	if digest, err := wire.ParseDigest(j.Request); err == nil {
		n.release(j.Owner, digest)
	}
}

// executeQueued runs a job whose turn it is.
func (n *Node) executeQueued(ctx context.Context, j jobs.Job, stdout, stderr io.Writer) (jobs.Result, error) {
	digest, err := wire.ParseDigest(j.Request)
	if err != nil {
		return jobs.Result{}, err
	}
	var stdin io.Reader = bytes.NewReader(nil)
	if j.Input != "" {
		f, err := n.openInput(j.Owner, j.Input)
		if err != nil {
			return jobs.Result{}, err
		}
		defer f.Close()
		stdin = f
	}
	got, err := n.execute(ctx, task{workload(j), digest, driver.Job{Stdin: stdin, Stdout: stdout, Stderr: stderr, Seed: j.Seed, Whole: true}})
	if got.held {
		return jobs.Result{Again: true}, nil // it waits until the owner of this machine lends again
	}
	return jobs.Result{Exit: got.Exit, Receipt: got.receipt, Record: got.Record, Keep: got.keep, Kept: got.kept}, err
}

// submit prepares to queue a job, or refuses it by form, grant or policy. What is in
// use now does not count: the job may wait.
func (n *Node) submit(ctx context.Context, who mesh.PeerID, g trust.Grant, digest wire.Digest, in wire.Submit) (*jobs.Submission, error) {
	if len(in.Seed) != len(driver.Seed{}) {
		return nil, mesh.Errorf(mesh.Invalid, "a seed has %d bytes, not %d", len(driver.Seed{}), len(in.Seed))
	}
	j := jobs.Job{
		ID: mesh.NewWorkloadID(digest), Owner: who, Request: digest.String(), Key: in.Key, Spec: jobSpec(in.Spec),
		Seed: driver.Seed(in.Seed), Input: in.Input, InputSize: in.InputSize,
	}
	sub, err := n.queue.Submit(j)
	if err != nil {
		return nil, err
	}
	policy := n.policy(ctx)
	if who == n.m.Key.ID {
		policy.Paused = nil
	}
	if err := admission.Decide(policy, n.grantOf(who, g), j.Spec, admission.Usage{}).Refusal(who); err != nil {
		return nil, err
	}
	if _, err := n.cfg.Modules.Path(j.Spec.Digest); err != nil {
		return nil, err
	}
	queue := sub.Commit
	sub.Commit = func(tx *store.Tx) error {
		if err := queue(tx); err != nil {
			return err
		}
		return n.note(tx, who, "submit-job", workload(sub.Job), describe(sub.Job.Spec))
	}
	if j.Input == "" {
		return sub, nil
	}
	inputs, err := n.queuedInputs(who)
	if err != nil {
		return nil, err
	}
	path, err := inputs.Path(j.Input)
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(path); err != nil || info.Size() != j.InputSize {
		return nil, mesh.Errorf(mesh.Invalid, "the job's input has another size than it says")
	}
	return sub, nil
}

// mine judges whether who may see and cancel a job.
func (n *Node) mine(who mesh.PeerID, j jobs.Job) error {
	if j.Owner != who && who != n.m.Key.ID {
		return mesh.Errorf(mesh.NotFound, "there is no job %s here", j.ID).WithHint("list yours with: peerctl job ls")
	}
	return nil
}

// viewJob is a job that who may see.
func (n *Node) viewJob(who mesh.PeerID, id mesh.WorkloadID) (v jobs.View, err error) {
	err = n.m.Store.View(func(tx *store.Tx) error {
		if v, err = n.queue.View(tx, id); err == nil {
			err = n.mine(who, v.Job)
		}
		return err
	})
	return v, err
}

func (n *Node) cancelJob(who mesh.PeerID, id mesh.WorkloadID) change {
	return change{
		commit: func(tx *store.Tx) error {
			return n.queue.Cancel(tx, id, func(j jobs.Job) error {
				if err := n.mine(who, j); err != nil || j.State == jobs.Done {
					return err
				}
				return n.note(tx, who, "cancel-job", workload(j), "")
			})
		},
		after: func() { n.queue.Stop(id) },
	}
}

// listJobs is who's jobs, the newest first; for this node itself, everybody's.
func (n *Node) listJobs(who mesh.PeerID) (views []jobs.View, err error) {
	err = n.m.Store.View(func(tx *store.Tx) (err error) {
		views, err = n.queue.List(tx, func(j jobs.Job) bool { return n.mine(who, j) == nil })
		return err
	})
	slices.SortFunc(views, func(x, y jobs.View) int { return cmp.Or(y.Submitted.Compare(x.Submitted), cmp.Compare(x.ID, y.ID)) })
	return views, err
}
