package node

import (
	"errors"
	"slices"

	"peercompute/pkg/admission"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
	"peercompute/pkg/supervisor"
	"peercompute/pkg/trust"
	"peercompute/pkg/wire"
)

// This file makes a deploy of a name that is there already an update of it.

// namesake is who's workload of a name; nil if there is none.
func namesake(tx *store.Tx, who mesh.PeerID, name string) (found *supervisor.Record, err error) {
	err = supervisor.Each(tx, func(r supervisor.Record) error {
		if r.Workload.Owner == who && r.Workload.Spec.Name == name && r.Desired != supervisor.Remove {
			found = &r
		}
		return nil
	})
	return found, err
}

// errMoved says that an answer, which is signed before its effect, would not be true.
func errMoved(name string) error {
	return mesh.Errorf(mesh.Conflict, "%s was changed by somebody else at the same moment", name).
		WithRule("workload.updates").WithHint("look at it, and try again: peerctl history %s", name)
}

// update makes next the next revision of a workload, as promised. note says how it
// came about.
func (n *Node) update(tx *store.Tx, policy admission.Policy, who mesh.PeerID, g trust.Grant, r supervisor.Record, next supervisor.Next, promised accepted, note string) error {
	if r.Workload.ID != promised.work.ID || r.Following() != promised.revision {
		return errMoved(r.Workload.Spec.Name)
	}
	if len(r.Retired) >= supervisor.MaxRetired {
		return mesh.Errorf(mesh.Overloaded, "%d earlier revisions of %s have not ended yet", len(r.Retired), r.Workload.Spec.Name).
			WithRule("workload.updates").WithHint("try again in a moment; see: peerctl history %s", r.Workload.Spec.Name)
	}
	if mustRecreate(r, next.Spec, next.Recreate) != next.Recreate {
		return errMoved(r.Workload.Spec.Name)
	}
	if err := n.decideUpdate(tx, policy, who, g, r, next); err != nil {
		return err
	}
	if err := pushedReady(tx, n.grantOf(who, g), next.Spec); err != nil {
		return err
	}
	if err := n.claimVolumes(tx, who, g, next.Spec, r.Workload.ID, next.Run); err != nil {
		return err
	}
	if err := secretsReady(tx, r.Workload.Owner, next.Spec); err != nil {
		return err
	}
	before := r.Serving()
	if err := rememberFirst(tx, r); err != nil {
		return err
	}
	number := r.Supersede(next)
	if err := supervisor.Put(tx, r); err != nil {
		return err
	}
	v := supervisor.Revision{Number: number, Spec: next.Spec, By: who, Time: n.m.Now().UTC(), Served: r.Next == nil, Note: note}
	if err := supervisor.PutRevision(tx, r.Workload.ID, v, max(before, r.Serving())); err != nil {
		return err
	}
	detail := describe(next.Spec)
	if note != "" {
		detail = note + ", " + detail
	}
	return n.note(tx, who, "update", r.With(next.Spec), detail)
}

// mustRecreate reports whether an update stops what runs before the new revision
// starts: if that was asked for, or both have the same volume.
func mustRecreate(r supervisor.Record, next mesh.Spec, asked bool) bool {
	return asked || slices.ContainsFunc(r.Specs(), func(s mesh.Spec) bool { return mesh.ShareVolume(s, next) })
}

// rememberFirst writes down a revision that began before revisions were.
func rememberFirst(tx *store.Tx, r supervisor.Record) error {
	all, err := supervisor.History(tx, r.Workload.ID)
	if err != nil || len(all) > 0 {
		return err
	}
	w := r.Workload
	v := supervisor.Revision{Number: r.Serving(), Spec: w.Spec, By: w.Owner, Time: w.Created, Served: true}
	return supervisor.PutRevision(tx, w.ID, v, v.Number)
}

// decideUpdate judges an update: both revisions count while both may run.
func (n *Node) decideUpdate(tx *store.Tx, p admission.Policy, who mesh.PeerID, g trust.Grant, r supervisor.Record, next supervisor.Next) error {
	p, g, usage, err := n.weigh(tx, p, who, g)
	if err != nil {
		return err
	}
	if usage.NewVolumes, err = newVolumes(tx, who, next.Spec); err != nil {
		return err
	}
	alone := admission.Decide(p, g, next.Spec, without(usage, r))
	if next.Recreate {
		return alone.Refusal(who)
	}
	both := admission.Decide(p, g, next.Spec, usage)
	err = both.Refusal(who)
	if e := (*mesh.Error)(nil); errors.As(err, &e) && alone.Allow && r.Holds() {
		hint := "both revisions run until the new one is ready; deploy with --recreate to stop the old one first, which is an outage for a moment"
		if e.Hint != "" {
			hint += "; or " + e.Hint
		}
		return e.WithHint("%s", hint)
	}
	return err
}

// without is a usage less what a workload's serving revision holds.
func without(u admission.Usage, r supervisor.Record) admission.Usage {
	if r.Holds() {
		var h admission.Held
		h.Add(r.Workload.Spec)
		u.Peer, u.Host = u.Peer.Less(h), u.Host.Less(h)
	}
	return u
}

// updating is how an update stands; nil if there is none.
func (n *Node) updating(r supervisor.Record) *wire.Update {
	if r.Next == nil {
		return nil
	}
	st, ok := n.sup.StatusOf(r.Workload.ID, r.Next.Run)
	if !ok || r.Next.Last.State.Final() {
		st = r.Next.Last
	}
	if st.State == "" {
		st.State = mesh.Pending
	}
	return &wire.Update{Revision: r.Next.Revision, Status: st}
}
