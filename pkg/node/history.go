package node

import (
	"context"
	"fmt"
	"slices"
	"time"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
	"peercompute/pkg/request"
	"peercompute/pkg/store"
	"peercompute/pkg/supervisor"
	"peercompute/pkg/trust"
	"peercompute/pkg/wire"
)

// This file shows the revisions of a workload, and goes back to one.

// history is what is remembered of the revisions of a workload that who may see.
func (n *Node) history(who mesh.PeerID, id mesh.WorkloadID) (out wire.History, err error) {
	err = n.m.Store.View(func(tx *store.Tx) error {
		r, err := n.owned(tx, who, id)
		if err != nil {
			return err
		}
		all, err := supervisor.History(tx, id)
		for _, v := range all {
			out.Revisions = append(out.Revisions, n.revision(r, v))
		}
		return err
	})
	return out, err
}

func (n *Node) revision(r supervisor.Record, v supervisor.Revision) wire.Revision {
	out := wire.Revision{
		Number: v.Number, Image: v.Spec.Image, Digest: v.Digest, By: n.m.Trust.Resolve(v.By), Time: v.Time.UnixMilli(),
		Failure: v.Failure, Note: v.Note,
	}
	if out.Digest == "" {
		out.Digest = v.Spec.Digest
	}
	switch {
	case v.Number == r.Serving():
		out.Outcome = wire.OutcomeServing
		if st, _, ok := n.sup.Status(r.Workload.ID); ok && st.Digest != "" {
			out.Digest = st.Digest
		}
	case v.Failure != "":
		out.Outcome = wire.OutcomeFailed
	case v.Served:
		out.Outcome = wire.OutcomeReplaced
	case r.Next != nil && r.Next.Revision == v.Number:
		out.Outcome = wire.OutcomeComing
	default:
		out.Outcome = wire.OutcomeGivenUp
	}
	return out
}

func (n *Node) onHistory(_ context.Context, c *request.Call) (request.Reply, error) {
	in, err := decodeRef(c)
	if err != nil {
		return request.Reply{}, err
	}
	out, err := n.history(c.From, in.Workload)
	return request.Reply{Body: out}, err
}

// rollback makes an earlier revision the next one, by the way of any update.
func (n *Node) rollback(ctx context.Context, who mesh.PeerID, g trust.Grant, request wire.Digest, in wire.Rollback) (accepted, change, error) {
	policy := n.policy(ctx)
	var promised accepted
	plan := func(tx *store.Tx) (r supervisor.Record, v supervisor.Revision, err error) {
		if r, err = n.owned(tx, who, in.Workload); err != nil {
			return r, v, err
		}
		v, err = earlier(tx, r, in.To)
		return r, v, err
	}
	err := n.m.Store.View(func(tx *store.Tx) error {
		r, v, err := plan(tx)
		if err == nil && v.Spec.Runtime == mesh.Wasm {
			_, err = n.cfg.Modules.Path(v.Spec.Digest)
		}
		promised = accepted{r.With(v.Spec), r.Following(), mustRecreate(r, v.Spec, in.Recreate)}
		return err
	})
	if err != nil {
		return accepted{}, change{}, err
	}
	commit := func(tx *store.Tx) error {
		r, v, err := plan(tx)
		if err != nil {
			return err
		}
		spec := v.Spec
		spec.Publish = nil // the wish of today counts
		if spec.Runtime == mesh.Container && v.Digest != "" && len(spec.Signatures) == 0 {
			spec.Digest = v.Digest // its name may mean another image by now; what was signed is pinned as it is
		}
		next := supervisor.Next{Run: mesh.NewWorkloadID(request), Spec: spec, Again: true, Recreate: promised.recreate}
		return n.update(tx, policy, who, g, r, next, promised, fmt.Sprintf("rollback to %d", v.Number))
	}
	return promised, change{commit, n.begun(who, promised)}, nil
}

// earlier finds the revision to go back to; 0 = the last one that served before.
func earlier(tx *store.Tx, r supervisor.Record, to int) (supervisor.Revision, error) {
	name := r.Workload.Spec.Name
	all, err := supervisor.History(tx, r.Workload.ID)
	if err != nil {
		return supervisor.Revision{}, err
	}
	if to == r.Serving() {
		return supervisor.Revision{}, mesh.Errorf(mesh.Invalid, "revision %d of %s is the one that serves", to, name).WithRule("workload.revision")
	}
	for _, v := range slices.Backward(all) {
		if to == 0 && v.Served && v.Number < r.Serving() || to != 0 && v.Number == to {
			return v, nil
		}
	}
	if to == 0 {
		return supervisor.Revision{}, mesh.Errorf(mesh.NotFound, "no revision of %s served before", name).WithRule("workload.revision").WithHint("see: peerctl history %s", name)
	}
	return supervisor.Revision{}, mesh.Errorf(mesh.NotFound, "revision %d of %s is not remembered", to, name).WithRule("workload.revision").
		WithHint("the last %d are; see: peerctl history %s", supervisor.MaxRevisions, name)
}

func (n *Node) onRollback(ctx context.Context, c *request.Call) (request.Reply, error) {
	var in wire.Rollback
	if err := wire.DecodeBody(c.Body, &in); err != nil {
		return request.Reply{}, err
	}
	if _, err := mesh.ParseWorkloadID(string(in.Workload)); err != nil {
		return request.Reply{}, err
	}
	out, ch, err := n.rollback(ctx, c.From, c.Grant, c.Digest, in)
	if err != nil {
		return request.Reply{}, err
	}
	return request.Reply{Body: out.answer(), Commit: ch.commit, After: ch.after}, nil
}

// History lists the revisions of a workload, wherever it is.
func (a *api) History(ctx context.Context, ref, peer string) ([]control.Revision, error) {
	d, err := a.find(ctx, ref, peer)
	if err != nil {
		return nil, err
	}
	id := d.View.Workload.ID
	var got wire.History
	if d.Peer == a.n.m.Key.ID {
		got, err = a.n.history(d.Peer, id)
	} else {
		err = a.n.ask(ctx, d.Peer, wire.VerbHistory, wire.Ref{Workload: id}, &got)
	}
	out := []control.Revision{}
	for _, v := range got.Revisions {
		out = append(out, control.Revision{
			Number: v.Number, Image: v.Image, Digest: v.Digest, By: a.n.m.Trust.Name(v.By), ByID: v.By,
			Time: time.UnixMilli(v.Time).UTC(), Outcome: v.Outcome, Failure: v.Failure, Note: v.Note,
		})
	}
	return out, err
}

// bringModule sends the module of the revision to go back to, which its peer may have
// dropped for room, if it is kept here. It reports whether anything was sent.
func (a *api) bringModule(ctx context.Context, p mesh.PeerID, b wire.Rollback, emit func(control.DeployEvent) error) bool {
	var got wire.History
	if err := a.n.ask(ctx, p, wire.VerbHistory, wire.Ref{Workload: b.Workload}, &got); err != nil {
		return false
	}
	for _, v := range slices.Backward(got.Revisions) {
		if b.To == 0 && v.Outcome == wire.OutcomeReplaced || b.To != 0 && v.Number == b.To {
			err := a.n.sendModule(ctx, p, v.Digest, func(pr mesh.Progress) { _ = emit(control.DeployEvent{Progress: &pr}) })
			return err == nil
		}
	}
	return false
}

// Rollback makes an earlier revision serve again.
func (a *api) Rollback(ctx context.Context, ref, peer string, b control.Rollback, emit func(control.DeployEvent) error) error {
	d, err := a.find(ctx, ref, peer)
	if err != nil {
		return err
	}
	n := a.n
	in := wire.Rollback{Workload: d.View.Workload.ID, To: b.To, Recreate: b.Recreate}
	var ok wire.Accepted
	if d.Peer == n.m.Key.ID {
		out, c, err := n.rollback(ctx, d.Peer, trust.Grant{}, randomDigest(), in)
		if err == nil {
			err = n.apply(ctx, c)
		}
		if err != nil {
			return err
		}
		ok = out.answer()
	} else {
		err := n.ask(ctx, d.Peer, wire.VerbRollback, in, &ok)
		if mesh.KindOf(err) == mesh.NotFound && d.View.Workload.Spec.Runtime == mesh.Wasm {
			if a.bringModule(ctx, d.Peer, in, emit) {
				err = n.ask(ctx, d.Peer, wire.VerbRollback, in, &ok)
			}
		}
		if err != nil {
			return err
		}
	}
	v := d.View
	v.Workload.Spec = ok.Spec
	if ok.Recreate && !b.Recreate {
		if err := emit(control.DeployEvent{Note: recreateNote(ok.Revision)}); err != nil {
			return err
		}
	}
	w := a.show(v, d.Peer, false)
	if err := emit(control.DeployEvent{Workload: &w, Done: !b.Wait}); err != nil || !b.Wait {
		return err
	}
	return a.report(ctx, d.Peer, v, ok.Revision, false, emit)
}
