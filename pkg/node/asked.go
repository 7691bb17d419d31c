package node

import (
	"cmp"
	"context"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"peercompute/pkg/control"
	"peercompute/pkg/driver"
	"peercompute/pkg/jobs"
	"peercompute/pkg/mesh"
	"peercompute/pkg/receipt"
	"peercompute/pkg/store"
	"peercompute/pkg/trust"
	"peercompute/pkg/wire"
)

// This file is the jobs that this node queued on other peers: what it remembers of
// them, and how it learns what came of them.

// asked is a job that this node queued elsewhere, as it last knew of it.
type asked struct {
	Peer      mesh.PeerID  `json:"peer"`
	Spec      mesh.Spec    `json:"spec"`
	Seed      driver.Seed  `json:"seed"` // zero = not known
	Input     string       `json:"input,omitempty"`
	InputSize int64        `json:"input_size,omitempty"`
	Added     time.Time    `json:"added"`
	View      wire.JobView `json:"view"`    // without its receipt
	Settled   bool         `json:"settled"` // it is done, and its receipt is dealt with
}

// Bounds of what is remembered.
const (
	maxAsked   = 4000                // jobs in all
	keptAsked  = 1000                // settled ones
	staleAsked = 30 * 24 * time.Hour // after which nothing more is expected
)

func putAsked(tx *store.Tx, a asked) error {
	a.View.Receipt = nil
	return tx.PutJSON(store.AskedJobs, []byte(a.View.ID), a)
}

func getAsked(tx *store.Tx, id mesh.WorkloadID) (a asked, ok bool, err error) {
	ok, err = tx.GetJSON(store.AskedJobs, []byte(id), &a)
	return a, ok, err
}

// askedJobs lists them, the newest first.
func (n *Node) askedJobs() (out []asked, err error) {
	err = n.m.Store.View(func(tx *store.Tx) error {
		return tx.Each(store.AskedJobs, nil, func(k, _ []byte) (bool, error) {
			a, _, err := getAsked(tx, mesh.WorkloadID(k))
			out = append(out, a)
			return err == nil, err
		})
	})
	slices.SortFunc(out, func(x, y asked) int {
		return cmp.Or(y.Added.Compare(x.Added), cmp.Compare(x.View.ID, y.View.ID))
	})
	return out, err
}

// SubmitJob queues a job here or on a peer. When it returns, the job is on disk there.
func (a *api) SubmitJob(ctx context.Context, s control.SubmitJob) (control.Job, error) {
	spec := jobSpec(s.Spec)
	if err := spec.Validate(); err != nil {
		return control.Job{}, err
	}
	size, err := a.n.inputSize(s.Input)
	if err != nil {
		return control.Job{}, err
	}
	order := asked{Spec: spec, Seed: driver.Seed(randomDigest()), Input: s.Input, InputSize: size}
	if !s.Any {
		p, err := a.where(s.Peer)
		if err != nil {
			return control.Job{}, err
		}
		order.Peer = p
		return a.n.queueOn(ctx, order, s.Key)
	}
	var job control.Job
	err = a.n.tryHosts(ctx, func(g trust.Grant) (settled bool, err error) {
		order.Peer = g.Peer
		job, err = a.n.queueOn(ctx, order, s.Key)
		return false, err
	})
	return job, err
}

// inputSize is the size of an input that was uploaded; 0 of none.
func (n *Node) inputSize(digest string) (int64, error) {
	if digest == "" {
		return 0, nil
	}
	path, err := n.inputs.Path(digest)
	if err != nil {
		return 0, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// accepted reports whether the job that a peer answered a request with can be the one
// that was submitted. By a key it may be an earlier one, whose seed is not known.
func (a *asked) accepted(request wire.Digest, key string) bool {
	if a.View.Request != request {
		if key == "" {
			return false
		}
		a.Seed = driver.Seed{}
	}
	return a.View.ID == mesh.NewWorkloadID(a.View.Request)
}

// queueOn queues a job on a peer, which may be this machine.
func (n *Node) queueOn(ctx context.Context, order asked, key string) (control.Job, error) {
	order.Added = n.m.Now().UTC()
	in := wire.Submit{Spec: order.Spec, Seed: order.Seed[:], Input: order.Input, InputSize: order.InputSize, Key: key}
	if order.Peer == n.m.Key.ID {
		return n.queueHere(ctx, in)
	}
	if err := n.roomForAsked(); err != nil {
		return control.Job{}, err
	}
	if err := n.sendInput(ctx, order.Peer, order.Input, order.InputSize); err != nil {
		return control.Job{}, err
	}
	var request wire.Digest
	err := n.withModule(ctx, order.Peer, order.Spec.Digest, nil, func() error {
		s, digest, err := n.m.Client.OpenSigned(ctx, order.Peer, wire.VerbSubmit, in, &order.View)
		if err != nil {
			return n.elsewhere(order.Peer, err)
		}
		request = digest
		_ = s.Close() // the answer is here and verified
		return nil
	})
	if err != nil {
		return control.Job{}, err
	}
	if !order.accepted(request, key) {
		return control.Job{}, mesh.Errorf(mesh.Forged, "%s answers with another job than was submitted", n.m.Trust.Name(order.Peer)).WithRule("jobs.id")
	}
	err = n.m.Store.Update(ctx, func(tx *store.Tx) error {
		if _, ok, err := getAsked(tx, order.View.ID); err != nil || ok {
			return err // its key found an earlier one
		}
		return putAsked(tx, order)
	})
	return n.showAsked(order, nil), err
}

func (n *Node) queueHere(ctx context.Context, in wire.Submit) (control.Job, error) {
	self := n.m.Key.ID
	if in.Input != "" {
		kept, err := n.inputs.Open(in.Input)
		if err != nil {
			return control.Job{}, err
		}
		defer kept.Close()
		inputs, err := n.queuedInputs(self)
		if err != nil {
			return control.Job{}, err
		}
		if _, _, err := inputs.Put(ctx, kept, in.Input, n.inputsInUse(self)); err != nil {
			return control.Job{}, err
		}
	}
	sub, err := n.submit(ctx, self, trust.Grant{}, randomDigest(), in)
	if err != nil {
		return control.Job{}, err
	}
	if err := n.m.Store.Update(ctx, sub.Commit); err != nil {
		return control.Job{}, err
	}
	sub.After()
	v, err := n.viewJob(self, sub.Job.ID)
	return n.showJob(v), err
}

// roomForAsked refuses more than can be remembered.
func (n *Node) roomForAsked() error {
	count := 0
	err := n.m.Store.View(func(tx *store.Tx) error { count = tx.Count(store.AskedJobs); return nil })
	if err == nil && count >= maxAsked {
		err = mesh.Errorf(mesh.Overloaded, "%d jobs that were queued elsewhere are not known to be done yet", count).WithRule("jobs.asked").
			WithHint("see them with: peerctl job ls")
	}
	return err
}

// sendInput makes sure that p has an input of ours.
func (n *Node) sendInput(ctx context.Context, p mesh.PeerID, digest string, size int64) error {
	if digest == "" {
		return nil
	}
	f, err := n.inputs.Open(digest)
	if err != nil {
		return err
	}
	defer f.Close()
	var reply wire.PutInputReply
	s, err := n.m.Client.Open(ctx, p, wire.VerbPutInput, wire.PutInput{Digest: digest, Size: size}, &reply)
	if err != nil {
		return n.elsewhere(p, err)
	}
	defer s.Reset()
	defer context.AfterFunc(ctx, s.Reset)()
	if reply.Have {
		return nil
	}
	return n.elsewhere(p, sendAll(s, f, "the input"))
}

// showAsked is a job elsewhere as the local person sees it; why says that its peer
// could not be asked now.
func (n *Node) showAsked(a asked, why error) control.Job {
	v := a.View
	out := control.Job{
		ID: v.ID, Name: v.Name, Peer: n.m.Trust.Name(a.Peer), PeerID: a.Peer, Owner: n.m.Trust.Name(n.m.Key.ID), OwnerID: n.m.Key.ID,
		Module: v.Module, State: v.State, Submitted: time.UnixMilli(v.Submitted).UTC(), Ahead: v.Ahead, Attempts: v.Attempts, Exit: v.Exit,
		OutputSize: v.OutputSize, LogSize: v.LogSize, Dropped: v.Dropped,
	}
	if v.Started != 0 {
		out.Started = time.UnixMilli(v.Started).UTC()
	}
	if v.Ended != 0 {
		out.Ended = time.UnixMilli(v.Ended).UTC()
	}
	if why != nil && v.State != string(jobs.Done) {
		out.State, out.Reason = string(mesh.Unknown), mesh.AsError(why).Msg
	}
	return out
}

// showJob is a job here.
func (n *Node) showJob(v jobs.View) control.Job {
	out := n.showAsked(asked{Peer: n.m.Key.ID, View: jobView(v, false)}, nil)
	out.Owner, out.OwnerID = n.m.Trust.Name(v.Owner), v.Owner
	return out
}

// Jobs lists this node's jobs anywhere, and all that are here.
func (a *api) Jobs(ctx context.Context, peer string) ([]control.Job, error) {
	n := a.n
	var only mesh.PeerID
	if peer != "" {
		p, err := a.where(peer)
		if err != nil {
			return nil, err
		}
		only = p
	}
	out := []control.Job{}
	if only == "" || only == n.m.Key.ID {
		views, err := n.listJobs(n.m.Key.ID)
		if err != nil {
			return nil, err
		}
		for _, v := range views {
			out = append(out, n.showJob(v))
		}
	}
	known, err := n.askedJobs()
	if err != nil {
		return nil, err
	}
	said := n.askAbout(ctx, known)
	for _, k := range known {
		if only != "" && k.Peer != only {
			continue
		}
		now := said[k.Peer]
		if v, ok := now.views[k.View.ID]; ok && !k.Settled {
			k.View = v
		}
		out = append(out, n.showAsked(k, now.err))
	}
	slices.SortStableFunc(out, func(x, y control.Job) int { return y.Submitted.Compare(x.Submitted) })
	return out, nil
}

// said is what a peer says of the jobs there.
type said struct {
	views    map[mesh.WorkloadID]wire.JobView
	complete bool // no other jobs of ours are there
	err      error
}

// askAbout asks each peer that has jobs of ours which are not settled, all at once,
// and settles what is done by now.
func (n *Node) askAbout(ctx context.Context, known []asked) map[mesh.PeerID]said {
	open := map[mesh.PeerID]bool{}
	for _, k := range known {
		if !k.Settled {
			open[k.Peer] = true
		}
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	out := map[mesh.PeerID]said{}
	for p := range open {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, listTimeout)
			defer cancel()
			var reply wire.ListJobsReply
			err := n.ask(ctx, p, wire.VerbListJobs, wire.ListJobs{}, &reply)
			s := said{map[mesh.WorkloadID]wire.JobView{}, err == nil && !reply.Truncated, err}
			for _, v := range reply.Jobs {
				s.views[v.ID] = v
			}
			mu.Lock()
			defer mu.Unlock()
			out[p] = s
		})
	}
	wg.Wait()
	for _, k := range known {
		if v, ok := out[k.Peer].views[k.View.ID]; ok && !k.Settled && v.State == string(jobs.Done) {
			if _, err := n.refresh(ctx, k); err != nil {
				n.log.Debug("cannot learn what came of a job", "job", k.View.ID, "err", err)
			}
		}
		if s := out[k.Peer]; n.isForgotten(k, s) {
			k.View.State, k.Settled = stateForgotten, true
			s.views[k.View.ID] = k.View
			err := n.m.Store.Update(ctx, func(tx *store.Tx) error {
				if have, ok, err := getAsked(tx, k.View.ID); err != nil || !ok || have.Settled {
					return err
				}
				return putAsked(tx, k)
			})
			if err != nil {
				n.log.Error("cannot note that a job is gone", "job", k.View.ID, "err", err)
			}
		}
	}
	return out
}

// stateForgotten is that of a job that its peer does not know any more: it finished
// long ago, was canceled there, or the peer lost its state.
const stateForgotten = "forgotten"

// isForgotten reports whether a peer that lists all our jobs leaves this one out. One
// that was queued a moment ago may be missing from a list made before.
func (n *Node) isForgotten(k asked, s said) bool {
	_, ok := s.views[k.View.ID]
	return s.complete && !ok && !k.Settled && n.m.Now().Sub(k.Added) > listTimeout && !n.m.KeyChanging()
}

// refresh asks a peer about one job and remembers the answer.
func (n *Node) refresh(ctx context.Context, k asked) (asked, error) {
	var v wire.JobView
	err := n.ask(ctx, k.Peer, wire.VerbJob, wire.JobRef{Job: k.View.ID}, &v)
	if err != nil {
		return k, err
	}
	if v.ID != k.View.ID || v.Request != k.View.Request {
		return k, mesh.Errorf(mesh.Forged, "%s answers with another job than was asked for", n.m.Trust.Name(k.Peer)).WithRule("jobs.id")
	}
	return n.learn(ctx, k, v)
}

// learn remembers what a peer says of a job. Once it is done its receipt is held
// against what was asked for and kept.
func (n *Node) learn(ctx context.Context, k asked, v wire.JobView) (asked, error) {
	k.View = v
	var rec *receipt.Record
	runner := k.Peer
	if v.State == string(jobs.Done) {
		k.Settled = true
		if len(v.Receipt) > 0 {
			r, err := n.judge(k, v)
			if err != nil {
				return k, err
			}
			rec, runner = &r, r.Signed.Runner
		}
	}
	return k, n.m.Store.Update(ctx, func(tx *store.Tx) error {
		if have, ok, err := getAsked(tx, k.View.ID); err != nil || !ok || have.Settled { // once: a receipt may not be kept any more
			return err
		}
		if rec != nil {
			if err := n.addReceipt(tx, *rec, runner); err != nil {
				return err
			}
		}
		return putAsked(tx, k)
	})
}

// judge holds the receipt of a queued job against what was asked for.
func (n *Node) judge(k asked, v wire.JobView) (receipt.Record, error) {
	r, err := wire.OpenReceipt(v.Receipt)
	if err != nil {
		return receipt.Record{}, mesh.Errorf(mesh.Forged, "%s sent a receipt that does not hold", n.m.Trust.Name(k.Peer)).WithRule("receipt.signature").Because(err)
	}
	runner, asker := k.Peer, n.m.Key.ID
	if n.m.Trust.Resolve(r.Runner) == runner { // signed with the key that it had then
		runner = r.Runner
	}
	if n.m.Mine(r.Asker) {
		asker = r.Asker
	}
	e := receipt.Received{
		Runner: runner, Asker: asker, Request: v.Request, Whole: true, Sent: uint64(k.InputSize),
		Input: func(size uint64) (wire.Digest, bool) { return n.inputPrefix(k, size) },
	}
	if k.Seed != (driver.Seed{}) {
		e.Seed = (*wire.Digest)(&k.Seed)
	}
	if v.Exit != nil {
		e.Exit = *v.Exit
	}
	if e.Module, err = wire.ParseDigest(k.Spec.Digest); err != nil {
		return receipt.Record{}, err
	}
	if e.Spec, err = wire.SpecDigest(k.Spec); err != nil {
		return receipt.Record{}, err
	}
	spec := k.Spec
	return receipt.Record{Role: receipt.Asked, Envelope: v.Receipt, Added: n.m.Now().UTC(), Spec: &spec, Flaw: e.Flaw(r), Signed: r}, nil
}

// inputPrefix is the digest of the first bytes of a job's input, if it is kept.
func (n *Node) inputPrefix(k asked, size uint64) (wire.Digest, bool) {
	switch {
	case size == 0:
		return receipt.DigestOf(nil), true
	case size == uint64(k.InputSize):
		d, err := wire.ParseDigest(k.Input)
		return d, err == nil
	case size > uint64(k.InputSize):
		return wire.Digest{}, false
	}
	f, err := n.inputs.Open(k.Input)
	if err != nil {
		return wire.Digest{}, false
	}
	defer f.Close()
	return digestPrefix(f, size)
}

// findJob resolves an ID or a unique prefix: a job of ours elsewhere, or any here.
func (n *Node) findJob(ref string) (k asked, here bool, err error) {
	var elsewhere []asked
	var local []mesh.WorkloadID
	err = n.m.Store.View(func(tx *store.Tx) error {
		if ref == "" {
			return nil
		}
		err := tx.Each(store.AskedJobs, []byte(ref), func(key, _ []byte) (bool, error) {
			if !strings.HasPrefix(string(key), ref) {
				return false, nil
			}
			a, _, err := getAsked(tx, mesh.WorkloadID(key))
			elsewhere = append(elsewhere, a)
			return err == nil, err
		})
		if err != nil {
			return err
		}
		return tx.Each(store.Jobs, []byte(ref), func(key, _ []byte) (bool, error) {
			if !strings.HasPrefix(string(key), ref) {
				return false, nil
			}
			local = append(local, mesh.WorkloadID(key))
			return true, nil
		})
	})
	switch {
	case err != nil:
		return k, false, err
	case len(elsewhere)+len(local) > 1:
		return k, false, mesh.Errorf(mesh.Conflict, "several jobs begin with %q", ref).WithHint("give more of the ID")
	case len(local) == 1:
		return asked{Peer: n.m.Key.ID, View: wire.JobView{ID: local[0]}}, true, nil
	case len(elsewhere) == 1:
		return elsewhere[0], false, nil
	}
	return k, false, mesh.Errorf(mesh.NotFound, "there is no job %q", ref).WithHint("list them with: peerctl job ls")
}

// Job shows one job as it is now.
func (a *api) Job(ctx context.Context, ref string) (control.Job, error) {
	k, here, err := a.n.findJob(ref)
	if err != nil {
		return control.Job{}, err
	}
	if here {
		v, err := a.n.viewJob(a.n.m.Key.ID, k.View.ID)
		return a.n.showJob(v), err
	}
	if k.Settled {
		return a.n.showAsked(k, nil), nil
	}
	now, err := a.n.refresh(ctx, k)
	if mesh.KindOf(err) == mesh.Unavailable || mesh.KindOf(err) == mesh.Timeout {
		return a.n.showAsked(k, err), nil
	}
	return a.n.showAsked(now, nil), err
}

// CancelJob ends a job wherever it is.
func (a *api) CancelJob(ctx context.Context, ref string) (control.Job, error) {
	k, here, err := a.n.findJob(ref)
	if err != nil {
		return control.Job{}, err
	}
	if here {
		err = a.n.apply(ctx, a.n.cancelJob(a.n.m.Key.ID, k.View.ID))
	} else {
		err = a.n.ask(ctx, k.Peer, wire.VerbCancelJob, wire.JobRef{Job: k.View.ID}, nil)
	}
	if err != nil {
		return control.Job{}, err
	}
	return a.Job(ctx, string(k.View.ID))
}

// sweepEvery is how often peers are asked what came of jobs that nobody asked about.
const sweepEvery = time.Minute

// sweepAsked learns what came of queued jobs and for how long containers were up, so
// that what peers sign comes in also if nobody looks, and forgets what is old.
func (n *Node) sweepAsked(ctx context.Context) error {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil
		}
		known, err := n.askedJobs()
		if err == nil {
			n.askAbout(ctx, known)
			err = n.forgetAsked(ctx, known)
		}
		if err == nil {
			err = n.askStatements(ctx)
		}
		if err != nil && ctx.Err() == nil {
			n.log.Error("cannot look after queued jobs", "err", err)
		}
	}
}

// forgetAsked drops settled jobs over the limit, and those of which nothing will come.
func (n *Node) forgetAsked(ctx context.Context, newestFirst []asked) error {
	var old []mesh.WorkloadID
	settled := 0
	for _, k := range newestFirst {
		if k.Settled {
			settled++
		}
		if k.Settled && settled > keptAsked || n.m.Now().Sub(k.Added) > staleAsked {
			old = append(old, k.View.ID)
		}
	}
	if len(old) == 0 {
		return nil
	}
	return n.m.Store.Update(ctx, func(tx *store.Tx) error {
		for _, id := range old {
			if err := tx.Delete(store.AskedJobs, []byte(id)); err != nil {
				return err
			}
		}
		return nil
	})
}
