package node

import (
	"context"
	"fmt"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
	"peercompute/pkg/trust"
	"peercompute/pkg/wire"
)

// Deploy deploys here or on a peer and reports until the workload answers.
func (a *api) Deploy(ctx context.Context, d control.Deploy, emit func(control.DeployEvent) error) error {
	p, err := a.where(d.Peer)
	if err != nil {
		return err
	}
	spec := d.Spec
	if spec.Publish != nil {
		spec.Publish = &mesh.Publication{Gateway: a.gatewayRef(spec.Publish.Gateway)}
	}
	if err := spec.WithDefaults().Validate(); err != nil {
		return err
	}
	progress := func(pr mesh.Progress) { _ = emit(control.DeployEvent{Progress: &pr}) }
	if spec, err = a.n.bringImage(ctx, p, spec, d.Push, progress); err != nil {
		return err
	}
	v, revision, recreates, err := a.accept(ctx, p, wire.Deploy{Spec: spec, Recreate: d.Recreate}, progress)
	if err != nil {
		return err
	}
	if recreates && !d.Recreate {
		if err := emit(control.DeployEvent{Note: recreateNote(revision)}); err != nil {
			return err
		}
	}
	w := a.show(v, p, false)
	if err := emit(control.DeployEvent{Workload: &w, Done: !d.Wait}); err != nil || !d.Wait {
		return err
	}
	return a.report(ctx, p, v, revision, d.Ends, emit)
}

// recreateNote says why an update is an outage for a moment.
func recreateNote(revision int) string {
	return fmt.Sprintf("one revision at a time can have a volume, so the one before is stopped until revision %d answers", revision)
}

// accept gets the workload accepted by the peer that is to run it.
func (a *api) accept(ctx context.Context, p mesh.PeerID, in wire.Deploy, progress func(mesh.Progress)) (v wire.View, revision int, recreates bool, err error) {
	n := a.n
	if p == n.m.Key.ID {
		out, c, err := n.deploy(ctx, p, trust.Grant{}, randomDigest(), in)
		if err == nil {
			err = n.apply(ctx, c)
		}
		return wire.View{Workload: out.work, Status: mesh.Status{State: mesh.Pending, Since: n.m.Now().UTC()}}, out.revision, out.recreate, err
	}
	var ok wire.Accepted
	deploy := func() error { return n.ask(ctx, p, wire.VerbDeploy, in, &ok) }
	if in.Spec.Runtime == mesh.Wasm {
		err = n.withModule(ctx, p, in.Spec.Digest, progress, deploy)
	} else {
		err = deploy()
	}
	if err != nil {
		return wire.View{}, 0, false, err
	}
	now := n.m.Now().UTC()
	v = wire.View{
		Workload: mesh.Workload{ID: ok.Workload, Owner: n.m.Key.ID, Spec: ok.Spec, Created: now},
		Status:   mesh.Status{State: mesh.Pending, Since: now},
	}
	return v, ok.Revision, ok.Recreate, n.remember(ctx, p, v)
}

// report follows an accepted revision of a workload until it serves and answers (and
// has its public address, if it is to have one; or has ended, if it is to) or cannot. A peer that knows nothing of
// revisions gives 0.
func (a *api) report(ctx context.Context, p mesh.PeerID, v wire.View, revision int, ends bool, emit func(control.DeployEvent) error) error {
	err := a.follow(ctx, p, v.Workload.ID, func(now wire.View) (bool, error) {
		v = now
		w := a.show(v, p, false)
		st := v.Status
		if v.Revision < revision { // the one before serves still
			u := v.Update
			if u == nil || u.Revision != revision || u.Status.State.Final() || u.Status.State == mesh.Paused {
				return false, nil
			}
			st = u.Status
			w.Status, w.State = st, st.State
			if st.State != mesh.Running { // it is about to take over
				return true, emit(control.DeployEvent{Workload: &w, Progress: st.Progress})
			}
			return true, nil
		}
		published := v.Workload.Spec.Publish == nil || st.URL != "" || st.PublishError != ""
		if v.Revision > revision && revision != 0 || st.State == mesh.Running && published && !ends || st.State == mesh.Paused || st.State.Final() {
			return false, nil
		}
		return true, emit(control.DeployEvent{Workload: &w, Progress: st.Progress})
	})
	if err != nil {
		return err
	}
	if p != a.n.m.Key.ID {
		if err := a.n.remember(ctx, p, v); err != nil {
			return err
		}
	}
	w := a.show(v, p, false)
	if why := notTaken(v, w.Name, revision); why != nil {
		return emit(control.DeployEvent{Workload: &w, Log: a.lastLines(ctx, p, v.Workload.ID, revision), Error: control.NewError(why)})
	}
	if why := notUp(v, w.Name); why != nil {
		return emit(control.DeployEvent{Workload: &w, Log: a.lastLines(ctx, p, v.Workload.ID, 0), Error: control.NewError(why)})
	}
	return emit(control.DeployEvent{Workload: &w, Done: true})
}

// notTaken says why a revision has not taken over; nil if it has.
func notTaken(v wire.View, name string, revision int) error {
	if v.Revision == revision || revision == 0 {
		return nil
	}
	see := func(e *mesh.Error) error { return e.WithHint("what became of each: peerctl history %s", name) }
	u := v.Update
	switch {
	case v.Revision > revision:
		return see(mesh.Errorf(mesh.Conflict, "revision %d of %s was overtaken: revision %d serves", revision, name, v.Revision))
	case u != nil && u.Revision > revision:
		return see(mesh.Errorf(mesh.Conflict, "revision %d of %s was overtaken by revision %d before it was ready", revision, name, u.Revision))
	case u != nil && u.Revision == revision && u.Status.State == mesh.Paused:
		return mesh.Errorf(mesh.Unavailable, "revision %d of %s is accepted and waits: %s; revision %d serves meanwhile", revision, name, u.Status.Reason, v.Revision).
			WithHint("it takes over by itself when that is over; look with: peerctl history %s", name)
	case u != nil && u.Revision == revision && u.Status.State.Final():
		return see(mesh.Errorf(mesh.Unavailable, "%s stays at revision %d: revision %d is not up: %s", name, v.Revision, revision, u.Status.Reason))
	}
	return see(mesh.Errorf(mesh.Canceled, "revision %d of %s was given up before it was ready", revision, name))
}

// notUp says why a deploy has not come to what was asked for; nil if it has.
func notUp(v wire.View, name string) error {
	st, spec := v.Status, v.Workload.Spec
	switch {
	case st.State == mesh.Running && st.PublishError != "":
		return mesh.Errorf(mesh.Denied, "%s runs but is not published: %s", name, st.PublishError).
			WithHint("once that is settled it is published by itself; look with: peerctl ps")
	case st.State == mesh.Running:
		return nil
	case st.State == mesh.Exited && st.ExitCode == 0 && (spec.Shape == mesh.Job || spec.Runtime == mesh.Container && spec.Port == 0):
		return nil // it had something to do, and did it
	case st.State == mesh.Exited || st.State == mesh.Failed:
		return mesh.Errorf(mesh.Unavailable, "%s is not up: %s", name, st.Reason).
			WithHint("its log: peerctl logs %s; then: peerctl rm %s", name, name)
	case st.State == mesh.Stopped:
		return mesh.Errorf(mesh.Canceled, "%s was stopped before it answered", name)
	case st.State == mesh.Paused:
		return mesh.Errorf(mesh.Unavailable, "%s is accepted and paused: %s", name, st.Reason).WithHint("it runs by itself when that is over; look with: peerctl ps")
	}
	return mesh.Errorf(mesh.Canceled, "%s was removed before it answered", name)
}
