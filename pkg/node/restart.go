package node

import (
	"context"
	"time"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
	"peercompute/pkg/request"
	"peercompute/pkg/store"
	"peercompute/pkg/supervisor"
	"peercompute/pkg/trust"
	"peercompute/pkg/wire"
)

// restart asks for a new run of a workload. One that does not run any more takes up its
// share again, and is judged as if it were deployed.
func (n *Node) restart(ctx context.Context, who mesh.PeerID, g trust.Grant, id mesh.WorkloadID) change {
	policy := n.policy(ctx)
	c := n.edit(who, "restart", id, func(r *supervisor.Record) error {
		if r.Updating() {
			return mesh.Errorf(mesh.Conflict, "workload %s is being updated", r.Workload.Spec.Name).WithRule("workload.updating").
				WithHint("try again once the update is through: peerctl history %s", r.Workload.Spec.Name)
		}
		r.Again()
		return nil
	})
	edit := c.commit
	c.commit = func(tx *store.Tx) error {
		r, err := n.owned(tx, who, id)
		if err == nil && !r.Holds() {
			err = n.decide(tx, policy, who, g, r.Workload.Spec)
		}
		if err != nil {
			return err
		}
		return edit(tx)
	}
	return c
}

func (n *Node) onRestart(ctx context.Context, c *request.Call) (request.Reply, error) {
	in, err := decodeRef(c)
	if err != nil {
		return request.Reply{}, err
	}
	return done(n.restart(ctx, c.From, c.Grant, in.Workload)), nil
}

// Restart ends the run of a workload and begins another, and waits a while for it.
func (a *api) Restart(ctx context.Context, ref, peer string) (control.Workload, error) {
	d, err := a.find(ctx, ref, peer)
	if err != nil {
		return control.Workload{}, err
	}
	id, before := d.View.Workload.ID, d.View.Status.Since
	here := func() (change, error) { return a.n.restart(ctx, a.n.m.Key.ID, trust.Grant{}, id), nil }
	if w, err := a.act(ctx, d, here, wire.VerbRestart, wire.Ref{Workload: id}); err != nil {
		return w, err
	}
	wait, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	for again := true; again; {
		over := false
		err := a.follow(wait, d.Peer, id, func(v wire.View) (bool, error) {
			s := v.Status
			over = !s.Since.Equal(before) && (s.State == mesh.Running || s.State.Final())
			return !over, nil
		})
		// A watch of one that had ended before is over at once.
		again = !over && err == nil && sleepFor(wait, time.Second)
	}
	return a.current(ctx, d), nil
}
