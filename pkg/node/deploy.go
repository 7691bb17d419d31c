package node

import (
	"context"

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
	v, err := a.accept(ctx, p, spec, progress)
	if err != nil {
		return err
	}
	w := a.show(v, p, false)
	if err := emit(control.DeployEvent{Workload: &w, Done: !d.Wait}); err != nil || !d.Wait {
		return err
	}
	return a.report(ctx, p, v, emit)
}

// accept gets the workload accepted by the peer that is to run it.
func (a *api) accept(ctx context.Context, p mesh.PeerID, spec mesh.Spec, progress func(mesh.Progress)) (wire.View, error) {
	n := a.n
	if p == n.m.Key.ID {
		w, c, err := n.deploy(ctx, p, trust.Grant{}, randomDigest(), spec)
		if err == nil {
			err = n.apply(ctx, c)
		}
		return wire.View{Workload: w, Status: mesh.Status{State: mesh.Pending, Since: w.Created}}, err
	}
	if spec.Runtime == mesh.Wasm {
		if err := n.sendModule(ctx, p, spec.Digest, progress); err != nil {
			return wire.View{}, err
		}
	}
	var ok wire.Accepted
	if err := n.ask(ctx, p, wire.VerbDeploy, wire.Deploy{Spec: spec}, &ok); err != nil {
		return wire.View{}, err
	}
	now := n.m.Now().UTC()
	v := wire.View{
		Workload: mesh.Workload{ID: ok.Workload, Owner: n.m.Key.ID, Spec: ok.Spec, Created: now},
		Status:   mesh.Status{State: mesh.Pending, Since: now},
	}
	return v, n.remember(ctx, p, v)
}

// report follows an accepted workload until it answers (and has its public
// address, if it is to have one) or cannot.
func (a *api) report(ctx context.Context, p mesh.PeerID, v wire.View, emit func(control.DeployEvent) error) error {
	err := a.follow(ctx, p, v.Workload.ID, func(now wire.View) (bool, error) {
		v = now
		w := a.show(v, p, false)
		st := v.Status
		published := v.Workload.Spec.Publish == nil || st.URL != "" || st.PublishError != ""
		if st.State == mesh.Running && published || st.State == mesh.Paused || st.State.Final() {
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
	if why := notUp(v, w.Name); why != nil {
		return emit(control.DeployEvent{Workload: &w, Log: a.lastLines(ctx, p, v.Workload.ID), Error: control.NewError(why)})
	}
	return emit(control.DeployEvent{Workload: &w, Done: true})
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
