package node

import (
	"context"
	"net"
	"slices"
	"time"

	"peercompute/pkg/admission"
	"peercompute/pkg/event"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
	"peercompute/pkg/supervisor"
	"peercompute/pkg/trust"
	"peercompute/pkg/wire"
)

// This file is what can be done to the workloads that run here, whoever asks: a
// trusted peer, or the local person, who is this node itself.

// change is an effect that is decided but not durable yet.
type change struct {
	commit func(*store.Tx) error
	after  func() // once it is on disk
}

// apply makes a change on behalf of the local person.
func (n *Node) apply(ctx context.Context, c change) error {
	if err := n.m.Store.Update(ctx, c.commit); err != nil {
		n.refusedLocally(err)
		return err
	}
	c.after()
	return nil
}

// owned reads a record that who may see: its own, or any for this node itself. To
// anyone else the workload does not exist.
func (n *Node) owned(tx *store.Tx, who mesh.PeerID, id mesh.WorkloadID) (supervisor.Record, error) {
	r, err := supervisor.Get(tx, id)
	if err == nil && r.Desired == supervisor.Remove {
		err = mesh.Errorf(mesh.NotFound, "workload %s is being removed", id)
	}
	if err == nil && r.Workload.Owner != who && who != n.m.Key.ID {
		err = mesh.Errorf(mesh.NotFound, "there is no workload %s here", id).WithHint("list them with: peerctl ps")
	}
	if err != nil {
		return supervisor.Record{}, err
	}
	return r, nil
}

// present is record, but also finds a workload while it is being removed.
func (n *Node) present(who mesh.PeerID, id mesh.WorkloadID) (r supervisor.Record, err error) {
	err = n.m.Store.View(func(tx *store.Tx) error {
		r, err = supervisor.Get(tx, id)
		if err == nil && r.Workload.Owner != who && who != n.m.Key.ID {
			err = mesh.Errorf(mesh.NotFound, "there is no workload %s here", id)
		}
		return err
	})
	return r, err
}

func (n *Node) record(who mesh.PeerID, id mesh.WorkloadID) (r supervisor.Record, err error) {
	err = n.m.Store.View(func(tx *store.Tx) error { r, err = n.owned(tx, who, id); return err })
	return r, err
}

// view is a record with what is true of it now.
func (n *Node) view(r supervisor.Record) wire.View {
	st, ok := n.sup.StatusOf(r.Workload.ID, r.Current())
	if !ok {
		st = mesh.Status{State: mesh.Pending, Reason: "waiting for its runtime"}
	}
	if !ok && r.Last.State != "" {
		st = r.Last
	}
	st.URL, st.PublishError = n.gateways.url(r)
	w := r.Workload
	w.Spec.Publish = r.Publish
	return wire.View{Workload: w, Status: st, Revision: r.Serving(), Update: n.updating(r)}
}

// grantOf is what who may do here. The local person may use all that this machine
// lends.
func (n *Node) grantOf(who mesh.PeerID, g trust.Grant) trust.Grant {
	if who != n.m.Key.ID {
		return g
	}
	p, _, _ := n.lending.now()
	return trust.Grant{Peer: who, Name: "self", Allow: trust.Deploy | trust.Observe, Quota: trust.Unbounded(p.Workloads, hostResources(p))}
}

// accepted is a workload that will run, and the number of its revision.
type accepted struct {
	work     mesh.Workload
	revision int
	recreate bool // what serves is stopped first
}

func (a accepted) answer() wire.Accepted {
	return wire.Accepted{Workload: a.work.ID, Spec: a.work.Spec, Revision: a.revision, Recreate: a.recreate}
}

// deploy accepts a workload, or the next revision of one of that name, or refuses it
// by form, grant or policy. Where a revision comes, the workload keeps its ID.
func (n *Node) deploy(ctx context.Context, who mesh.PeerID, g trust.Grant, request wire.Digest, in wire.Deploy) (accepted, change, error) {
	spec := in.Spec.WithDefaults()
	if err := spec.Validate(); err != nil {
		return accepted{}, change{}, err
	}
	if spec.Runtime == mesh.Wasm {
		if _, err := n.cfg.Modules.Path(spec.Digest); err != nil {
			return accepted{}, change{}, err
		}
	}
	if spec.Publish != nil {
		if _, err := n.gateways.find(spec.Publish.Gateway); err != nil {
			return accepted{}, change{}, err
		}
	}
	if err := n.volumesReady(ctx, spec); err != nil {
		return accepted{}, change{}, err
	}
	policy := n.policy(ctx)
	fresh := mesh.Workload{ID: mesh.NewWorkloadID(request), Owner: who, Spec: spec, Created: n.m.Now().UTC()}
	out := accepted{work: fresh, revision: 1}
	err := n.m.Store.View(func(tx *store.Tx) error {
		before, err := namesake(tx, who, spec.Name)
		if before != nil {
			out = accepted{before.With(spec), before.Following(), mustRecreate(*before, spec, in.Recreate)}
		}
		return err
	})
	if err != nil {
		return accepted{}, change{}, err
	}
	commit := func(tx *store.Tx) error {
		before, err := namesake(tx, who, spec.Name)
		if err != nil {
			return err
		}
		if before != nil {
			next := supervisor.Next{Run: fresh.ID, Spec: spec, Publish: spec.Publish, Recreate: out.recreate}
			return n.update(tx, policy, who, g, *before, next, out, "")
		}
		if out.work.ID != fresh.ID {
			return errMoved(spec.Name)
		}
		if err := n.decide(tx, policy, who, g, spec); err != nil {
			return err
		}
		if err := pushedReady(tx, n.grantOf(who, g), spec); err != nil {
			return err
		}
		if err := n.claimVolumes(tx, who, g, spec, fresh.ID, fresh.ID); err != nil {
			return err
		}
		if err := secretsReady(tx, who, spec); err != nil {
			return err
		}
		if err := supervisor.Put(tx, supervisor.Record{Workload: fresh, Desired: supervisor.Run, Publish: spec.Publish}); err != nil {
			return err
		}
		v := supervisor.Revision{Number: 1, Spec: spec, By: who, Time: fresh.Created, Served: true}
		if err := supervisor.PutRevision(tx, fresh.ID, v, 1); err != nil {
			return err
		}
		return n.note(tx, who, "deploy", fresh, describe(spec))
	}
	return out, change{commit, n.begun(who, out)}, nil
}

// begun is what follows once an accepted workload is on disk.
func (n *Node) begun(who mesh.PeerID, a accepted) func() {
	return func() {
		w := a.work
		n.sup.Kick(w.ID)
		n.gateways.poke()
		n.m.Events.Publish(event.Event{Type: event.Workload, Name: "deploy", Peer: who, Subject: string(w.ID), Detail: w.Spec.Name})
		n.log.Info("accepted a workload", "workload", w.ID, "name", w.Spec.Name, "revision", a.revision, "owner", who, "runtime", w.Spec.Runtime)
	}
}

func (n *Node) decide(tx *store.Tx, p admission.Policy, who mesh.PeerID, g trust.Grant, spec mesh.Spec) error {
	p, g, usage, err := n.weigh(tx, p, who, g)
	if err != nil {
		return err
	}
	if usage.NewVolumes, err = newVolumes(tx, who, spec); err != nil {
		return err
	}
	return admission.Decide(p, g, spec, usage).Refusal(who)
}

// weigh is what a decision about who's request is made from, besides its spec.
func (n *Node) weigh(tx *store.Tx, p admission.Policy, who mesh.PeerID, g trust.Grant) (admission.Policy, trust.Grant, admission.Usage, error) {
	if who == n.m.Key.ID {
		p = unlent(p)
	}
	usage, err := n.usage(tx, who)
	if err != nil {
		return p, g, usage, err
	}
	return p, n.grantOf(who, g), usage, nil
}

// edit changes the record of a workload that who owns; action names the change in
// the audit log.
func (n *Node) edit(who mesh.PeerID, action string, id mesh.WorkloadID, f func(*supervisor.Record) error) change {
	return change{
		commit: func(tx *store.Tx) error {
			r, err := n.owned(tx, who, id)
			if err != nil {
				return err
			}
			if err := f(&r); err != nil {
				return err
			}
			if err := supervisor.Put(tx, r); err != nil {
				return err
			}
			return n.note(tx, who, action, r.Workload, "")
		},
		after: func() {
			n.sup.Kick(id)
			n.gateways.poke()
			n.m.Events.Publish(event.Event{Type: event.Workload, Name: action, Peer: who, Subject: string(id)})
		},
	}
}

func (n *Node) stop(who mesh.PeerID, id mesh.WorkloadID) change {
	return n.edit(who, "stop", id, func(r *supervisor.Record) error { r.Desired = supervisor.Stop; return nil })
}

func (n *Node) remove(who mesh.PeerID, id mesh.WorkloadID, force bool) change {
	return n.edit(who, "remove", id, func(r *supervisor.Record) error {
		st, _, _ := n.sup.Status(id)
		if r.Desired == supervisor.Run && !r.Last.State.Final() && !force {
			return mesh.Errorf(mesh.Conflict, "workload %s is %s", r.Workload.Spec.Name, st.State).
				WithRule("workload.running").WithHint("stop it first: peerctl stop %s   (or peerctl rm -f)", r.Workload.Spec.Name)
		}
		r.Desired = supervisor.Remove
		return nil
	})
}

func (n *Node) expose(who mesh.PeerID, id mesh.WorkloadID, p *mesh.Publication) (change, error) {
	action := "unpublish"
	if p != nil {
		action = "publish"
		if _, err := n.gateways.find(p.Gateway); err != nil {
			return change{}, err
		}
	}
	return n.edit(who, action, id, func(r *supervisor.Record) error {
		if p != nil && r.Workload.Spec.Runtime == mesh.Container && r.Workload.Spec.Port == 0 {
			return mesh.Errorf(mesh.Invalid, "workload %s has no port to publish", r.Workload.Spec.Name).
				WithHint("deploy it with --port, the port it listens on")
		}
		r.Publish = p
		return nil
	}), nil
}

// list is who's workloads; for this node itself, everybody's.
func (n *Node) list(who mesh.PeerID) ([]wire.View, error) {
	var out []wire.View
	err := n.m.Store.View(func(tx *store.Tx) error {
		return supervisor.Each(tx, func(r supervisor.Record) error {
			if r.Desired != supervisor.Remove && (r.Workload.Owner == who || who == n.m.Key.ID) {
				out = append(out, n.view(r))
			}
			return nil
		})
	})
	slices.SortFunc(out, func(a, b wire.View) int { return a.Workload.Created.Compare(b.Workload.Created) })
	return out, err
}

// settle is how long stop and remove wait for their effect before they answer.
const settle = 15 * time.Second

// await waits until done says so of the workload's state, it is gone, or settle
// has passed.
func (n *Node) await(ctx context.Context, id mesh.WorkloadID, done func(mesh.Status) bool) {
	ctx, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	for {
		st, changed, ok := n.sup.Status(id)
		if !ok || done(st) {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// mayRoute answers the tunnel: may this gateway reach this workload now?
func (n *Node) mayRoute(gateway mesh.PeerID, id mesh.WorkloadID) error {
	g, ok := n.m.Trust.Get(gateway)
	if !ok || !g.Allow.Has(trust.Route) {
		return mesh.Errorf(mesh.Denied, "this gateway may not open tunnels here").WithRule("grant.route")
	}
	r, err := n.record(n.m.Key.ID, id)
	if err != nil {
		return err
	}
	if r.Publish == nil || r.Desired != supervisor.Run {
		return mesh.Errorf(mesh.Denied, "the workload is not published").WithRule("workload.published")
	}
	if _, ended := n.m.Trust.Ended(r.Workload.Owner); ended {
		return mesh.Errorf(mesh.Denied, "the grant of the workload's owner has ended").WithRule("grant.until")
	}
	if to, err := n.gateways.find(r.Publish.Gateway); err != nil || to.Peer != g.Peer {
		return mesh.Errorf(mesh.Denied, "the workload is published elsewhere").WithRule("workload.published")
	}
	return nil
}

// visit connects a visitor to the revision that serves. done is to be called when the
// connection has ended: an update waits for it, for a while.
func (n *Node) visit(ctx context.Context, id mesh.WorkloadID) (conn net.Conn, done func(), err error) {
	r, err := n.record(n.m.Key.ID, id)
	if err != nil {
		return nil, nil, err
	}
	if h := n.hold(r.Workload); h.Level >= supervisor.Pause {
		return refusal(h.Until, n.m.Now()), func() {}, nil
	}
	t, done, err := n.sup.Borrow(id)
	if err != nil {
		return nil, nil, err
	}
	if conn, err = t.Dial(ctx); err != nil {
		done()
		return nil, nil, err
	}
	return conn, done, nil
}
