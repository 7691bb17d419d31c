package node

import (
	"cmp"
	"context"
	"crypto/rand"
	"io"
	"slices"
	"strings"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
	"peercompute/pkg/trust"
	"peercompute/pkg/wire"
)

// api answers the local person: what is here directly, what is elsewhere by a
// signed request.
type api struct{ n *Node }

var _ control.Workloads = (*api)(nil)

// where resolves a peer's name; self for this machine.
func (a *api) where(ref string) (mesh.PeerID, error) {
	self := a.n.m.Key.ID
	if ref == "self" || ref == self.String() {
		return self, nil
	}
	if ref != "" {
		g, err := a.n.m.Trust.Find(ref)
		return g.Peer, err
	}
	var hosts []trust.Grant
	for _, g := range a.n.m.Trust.Live() {
		if !g.Allow.Has(trust.Route) { // gateways run no workloads
			hosts = append(hosts, g)
		}
	}
	if len(hosts) == 0 {
		return self, nil
	}
	return "", mesh.Errorf(mesh.Invalid, "it is not said where to run it").
		WithHint("choose with --peer: self, %s", names(hosts))
}

func (a *api) UploadModule(ctx context.Context, r io.Reader) (control.Module, error) {
	digest, size, err := a.n.cfg.Modules.put(ctx, r, "", a.n.modulesInUse)
	return control.Module{Digest: digest, Size: size}, err
}

// Module is a module that is here, which counts as use.
func (a *api) Module(_ context.Context, digest string) (control.Module, error) {
	size, err := a.n.cfg.Modules.use(digest)
	return control.Module{Digest: digest, Size: size}, err
}

func (a *api) show(v wire.View, at mesh.PeerID, full bool) control.Workload {
	w := v.Workload
	out := control.Workload{
		ID: w.ID, Name: w.Spec.Name, Peer: a.n.m.Trust.Name(at), PeerID: at,
		Owner: a.n.m.Trust.Name(w.Owner), OwnerID: w.Owner, Kind: w.Spec.Runtime, Shape: w.Spec.Shape,
		Image: w.Spec.Image, State: v.Status.State, URL: v.Status.URL, Status: v.Status, Created: w.Created,
	}
	out.Revision, out.Project = v.Revision, w.Spec.Project
	if u := v.Update; u != nil {
		out.Update = &control.Update{Revision: u.Revision, Status: u.Status}
	}
	if full {
		out.Spec = &w.Spec
	}
	return out
}

// Workloads lists what runs here and what this node deployed elsewhere. A peer
// that does not answer is shown with what was last known, in state "unknown".
func (a *api) Workloads(ctx context.Context, peer string) ([]control.Workload, error) {
	views, err := a.all(ctx, peer)
	out := []control.Workload{}
	for _, d := range views {
		out = append(out, a.show(d.View, d.Peer, false))
	}
	slices.SortStableFunc(out, func(x, y control.Workload) int {
		return cmp.Or(strings.Compare(x.Peer, y.Peer), x.Created.Compare(y.Created))
	})
	return out, err
}

func (a *api) Workload(ctx context.Context, ref, peer string) (control.Workload, error) {
	d, err := a.find(ctx, ref, peer)
	if err != nil {
		return control.Workload{}, err
	}
	return a.show(d.View, d.Peer, true), nil
}

// act carries out a change here or asks for it elsewhere, and returns the
// workload as it is then.
func (a *api) act(ctx context.Context, d deployed, here func() (change, error), verb wire.Verb, body any) (control.Workload, error) {
	id := d.View.Workload.ID
	if d.Peer == a.n.m.Key.ID {
		c, err := here()
		if err == nil {
			err = a.n.apply(ctx, c)
		}
		if err != nil {
			return control.Workload{}, err
		}
		return a.current(ctx, d), nil
	}
	if err := a.n.ask(ctx, d.Peer, verb, body, nil); err != nil {
		return control.Workload{}, err
	}
	if verb == wire.VerbRemove {
		return a.show(d.View, d.Peer, false), a.n.forgetRemote(ctx, id)
	}
	return a.current(ctx, d), nil
}

// current asks anew; what was known before if it is gone or does not answer.
func (a *api) current(ctx context.Context, d deployed) control.Workload {
	if d.Peer == a.n.m.Key.ID {
		if r, err := a.n.record(d.Peer, d.View.Workload.ID); err == nil {
			d.View = a.n.view(r)
		}
	} else {
		var v wire.View
		if err := a.n.ask(ctx, d.Peer, wire.VerbInspect, wire.Ref{Workload: d.View.Workload.ID}, &v); err == nil {
			d.View = v
		}
	}
	return a.show(d.View, d.Peer, false)
}

func (a *api) Stop(ctx context.Context, ref, peer string) (control.Workload, error) {
	d, err := a.find(ctx, ref, peer)
	if err != nil {
		return control.Workload{}, err
	}
	id := d.View.Workload.ID
	if w, err := a.act(ctx, d, func() (change, error) { return a.n.stop(a.n.m.Key.ID, id), nil }, wire.VerbStop, wire.Ref{Workload: id}); err != nil {
		return w, err
	}
	a.settle(ctx, d, mesh.State.Final)
	return a.current(ctx, d), nil
}

// settle waits a while for the effect of a change.
func (a *api) settle(ctx context.Context, d deployed, done func(mesh.State) bool) {
	id := d.View.Workload.ID
	if d.Peer == a.n.m.Key.ID {
		a.n.await(ctx, id, func(s mesh.Status) bool { return done(s.State) })
		return
	}
	ctx, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	err := a.n.watchRemote(ctx, d.Peer, id, func(v wire.View) (bool, error) { return !done(v.Status.State), nil })
	if err != nil && mesh.KindOf(err) != mesh.NotFound {
		a.n.log.Debug("cannot watch a workload", "workload", id, "err", err)
	}
}

func (a *api) Remove(ctx context.Context, ref, peer string, force bool) (control.Workload, error) {
	d, err := a.find(ctx, ref, peer)
	if err != nil {
		return control.Workload{}, err
	}
	id := d.View.Workload.ID
	w, err := a.act(ctx, d, func() (change, error) { return a.n.remove(a.n.m.Key.ID, id, force), nil },
		wire.VerbRemove, wire.Ref{Workload: id, Force: force})
	if err == nil {
		a.settle(ctx, d, func(mesh.State) bool { return false })
	}
	return w, err
}

func (a *api) Publish(ctx context.Context, ref, peer string, p control.Publish) (control.Workload, error) {
	d, err := a.find(ctx, ref, peer)
	if err != nil {
		return control.Workload{}, err
	}
	id, wish := d.View.Workload.ID, mesh.Publication{Gateway: a.gatewayRef(p.Gateway)}
	w, err := a.act(ctx, d, func() (change, error) { return a.n.expose(a.n.m.Key.ID, id, &wish) },
		wire.VerbExpose, wire.Expose{Workload: id, Publish: wish})
	if err != nil || w.State.Final() {
		return w, err
	}
	ctx, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	err = a.follow(ctx, d.Peer, id, func(v wire.View) (bool, error) {
		d.View = v
		return v.Status.URL == "" && v.Status.PublishError == "", nil
	})
	if d.View.Status.PublishError != "" {
		return w, mesh.Errorf(mesh.Denied, "%s", d.View.Status.PublishError).WithHint("peerctl unpublish %s withdraws the wish", w.Name)
	}
	if err == nil && d.View.Status.URL == "" {
		err = mesh.Errorf(mesh.Timeout, "the gateway has not confirmed the name yet").WithHint("see: peerctl status, peerctl ps")
	}
	return a.show(d.View, d.Peer, false), err
}

// gatewayRef lets the local person name a gateway as this machine knows it; other
// peers know it by its ID.
func (a *api) gatewayRef(ref string) string {
	if g, err := a.n.m.Trust.Find(ref); ref != "" && err == nil {
		return g.Peer.String()
	}
	return ref
}

func (a *api) Unpublish(ctx context.Context, ref, peer string) (control.Workload, error) {
	d, err := a.find(ctx, ref, peer)
	if err != nil {
		return control.Workload{}, err
	}
	id := d.View.Workload.ID
	return a.act(ctx, d, func() (change, error) { return a.n.expose(a.n.m.Key.ID, id, nil) }, wire.VerbHide, wire.Ref{Workload: id})
}

// follow watches a workload wherever it is.
func (a *api) follow(ctx context.Context, p mesh.PeerID, id mesh.WorkloadID, emit func(wire.View) (bool, error)) error {
	if p != a.n.m.Key.ID {
		return a.n.watchRemote(ctx, p, id, emit)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return a.n.watch(ctx, p, id, func(v wire.View) error {
		more, err := emit(v)
		if !more {
			cancel()
		}
		return err
	})
}

// randomDigest stands for the digest of a request that the local person makes.
func randomDigest() (d wire.Digest) {
	rand.Read(d[:])
	return d
}
