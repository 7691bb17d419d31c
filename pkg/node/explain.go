package node

import (
	"context"
	"fmt"
	"strings"

	"peercompute/pkg/admission"
	"peercompute/pkg/audit"
	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
	"peercompute/pkg/request"
	"peercompute/pkg/store"
	"peercompute/pkg/trust"
	"peercompute/pkg/wire"
)

// This file tells what would be decided of a deploy, and does nothing of it. The
// rules are those that deploy asks, in its order.

// explain is every rule that a deploy of spec would be asked, with what it compared.
func (n *Node) explain(ctx context.Context, who mesh.PeerID, g trust.Grant, in wire.Deploy) (wire.Explained, error) {
	spec := in.Spec.WithDefaults()
	var out wire.Explained
	if who != n.m.Key.ID {
		out.Checks = append(out.Checks, mesh.Check{Rule: "trust", Want: "to be on the trust list", Limit: "known as " + g.Name, Pass: true})
	}
	out.Checks = append(out.Checks, judged("spec", "a well-formed request", spec.Validate()))
	if spec.Publish != nil {
		_, err := n.gateways.find(spec.Publish.Gateway)
		out.Checks = append(out.Checks, judged("host.gateway", "a gateway "+spec.Publish.Gateway, err))
	}
	policy, ready := n.policy(ctx), n.volumesReady(ctx, spec)
	err := n.m.Store.View(func(tx *store.Tx) error {
		p, grant, usage, err := n.weigh(tx, policy, who, g)
		if err != nil {
			return err
		}
		before, err := namesake(tx, who, spec.Name)
		if err != nil {
			return err
		}
		name := mesh.Check{Rule: "workload.name", Want: spec.Name, Limit: "new here", Pass: true}
		if before != nil {
			name.Limit = fmt.Sprintf("updates %s, revision %d", before.Workload.ID, before.Serving())
			if mustRecreate(*before, spec, in.Recreate) {
				usage = without(usage, *before)
			}
		}
		if usage.NewVolumes, err = newVolumes(tx, who, spec); err != nil {
			return err
		}
		if len(spec.Volumes) > 0 {
			var self mesh.WorkloadID
			if before != nil {
				self = before.Workload.ID
			}
			_, err := missingVolumes(tx, who, spec, self)
			if err == nil {
				err = ready
			}
			out.Checks = append(out.Checks, judged("volumes", fmt.Sprint(len(spec.Volumes)), err))
		}
		for _, row := range admission.Explain(p, grant, spec, usage) {
			out.Checks = append(out.Checks, row.Check)
		}
		out.Checks = append(out.Checks, name)
		return nil
	})
	out.Spec = bare(spec)
	return out, err
}

// judged is a rule that passes or fails as an error says.
func judged(rule, want string, err error) mesh.Check {
	c := mesh.Check{Rule: rule, Want: strings.TrimSpace(want), Pass: err == nil}
	if err != nil {
		c.Reason = mesh.AsError(err).Msg
	}
	return c
}

// bare is a spec without what decides nothing and may be secret.
func bare(s mesh.Spec) mesh.Spec {
	s.Env, s.Args = nil, nil
	return s
}

// onExplain answers a peer about its own deploy. Being trusted at all is enough:
// that is what makes it a peer whose grant is worth explaining.
func (n *Node) onExplain(ctx context.Context, c *request.Call) (request.Reply, error) {
	var in wire.Deploy
	if err := wire.DecodeBody(c.Body, &in); err != nil {
		return request.Reply{}, err
	}
	out, err := n.explain(ctx, c.From, c.Grant, in)
	return request.Reply{Body: out}, err
}

// Explain asks whoever would run it what would be decided.
func (a *api) Explain(ctx context.Context, d control.Deploy) (control.Explanation, error) {
	p, err := a.where(d.Peer)
	if err != nil {
		return control.Explanation{}, err
	}
	spec := bare(d.Spec)
	if spec.Publish != nil {
		spec.Publish = &mesh.Publication{Gateway: a.gatewayRef(spec.Publish.Gateway)}
	}
	var got wire.Explained
	if self := a.n.m.Key.ID; p == self {
		got, err = a.n.explain(ctx, self, trust.Grant{}, wire.Deploy{Spec: spec, Recreate: d.Recreate})
	} else {
		err = a.n.ask(ctx, p, wire.VerbExplain, wire.Deploy{Spec: spec, Recreate: d.Recreate}, &got)
	}
	if err != nil {
		return control.Explanation{}, err
	}
	out := control.Explanation{
		Peer: a.n.m.Trust.Name(p), PeerID: p, Asker: a.n.m.Key.ID, Allow: len(got.Checks) > 0, Checks: got.Checks, Spec: got.Spec,
	}
	for _, c := range got.Checks {
		out.Allow = out.Allow && c.Pass
	}
	return out, nil
}

// StopFrom ends every workload that a peer has on this machine.
func (a *api) StopFrom(ctx context.Context, ref string) ([]control.Workload, error) {
	p, err := mesh.ParsePeerID(ref) // one that was removed with --keep has no name any more
	if err != nil {
		if p, err = a.where(ref); err != nil {
			return nil, err
		}
	}
	ids, err := a.n.stopAll(ctx, audit.Local, "all of one owner", func(w mesh.Workload) bool { return w.Owner == p })
	if err != nil {
		return nil, err
	}
	a.n.gateways.poke()
	out := []control.Workload{}
	for _, id := range ids {
		a.n.await(ctx, id, func(s mesh.Status) bool { return s.State.Final() })
		r, err := a.n.record(a.n.m.Key.ID, id)
		if err != nil {
			continue // it was removed meanwhile
		}
		out = append(out, a.show(a.n.view(r), a.n.m.Key.ID, false))
	}
	return out, nil
}
