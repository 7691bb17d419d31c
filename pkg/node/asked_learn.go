package node

import (
	"context"
	"sync"
	"time"

	"peercompute/pkg/driver"
	"peercompute/pkg/jobs"
	"peercompute/pkg/mesh"
	"peercompute/pkg/receipt"
	"peercompute/pkg/store"
	"peercompute/pkg/wire"
)

// This file is how this node learns what came of the jobs that it queued on peers.

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
