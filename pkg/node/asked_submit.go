package node

import (
	"context"
	"os"

	"peercompute/pkg/control"
	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
	"peercompute/pkg/trust"
	"peercompute/pkg/wire"
)

// This file queues jobs, here and on peers.

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
