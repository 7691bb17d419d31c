package node

import (
	"context"
	"fmt"
	"strings"
	"time"

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
		var self mesh.WorkloadID
		if before != nil {
			self = before.Workload.ID
		}
		volumes, err := explainVolumes(tx, who, spec, self, ready)
		if err != nil {
			return err
		}
		secrets, err := explainSecrets(tx, who, spec)
		if err != nil {
			return err
		}
		out.Checks = append(append(out.Checks, volumes...), secrets...)
		for _, row := range admission.Explain(p, grant, spec, usage) {
			out.Checks = append(out.Checks, row.Check)
		}
		out.Checks = append(out.Checks, name)
		return nil
	})
	out.Spec = bare(spec)
	return out, err
}

// explainVolumes is a check for each volume that a spec names, and one for the machine.
func explainVolumes(tx *store.Tx, who mesh.PeerID, s mesh.Spec, self mesh.WorkloadID, ready error) (out []mesh.Check, err error) {
	if len(s.Volumes) == 0 {
		return nil, nil
	}
	out = append(out, judged("host.volumes", "volumes", ready))
	more := 0
	for _, m := range s.Volumes {
		v, ok, err := judgeVolume(tx, who, m, self)
		rule := "volume"
		if err != nil {
			if rule = mesh.AsError(err).Rule; rule == "" {
				return nil, err // not a refusal
			}
		}
		c := judged(rule, m.Name+" at "+m.Target, err)
		if c.Limit = fmt.Sprintf("there, %d MiB", v.Size>>20); !ok {
			more++
			c.Limit = fmt.Sprintf("not there: made with %d MiB", sizeOf(m)>>20)
		}
		out = append(out, c)
	}
	if err := roomForVolumes(tx, who, more); err != nil {
		out = append(out, judged("host.volumes", fmt.Sprintf("%d more", more), err))
	}
	return out, nil
}

// explainSecrets is a check for each secret that a spec names.
func explainSecrets(tx *store.Tx, who mesh.PeerID, s mesh.Spec) (out []mesh.Check, err error) {
	for _, m := range s.Secrets {
		var kept keptSecret
		ok, err := tx.GetJSON(store.Secrets, secretKey(who, m.Name), &kept)
		if err != nil {
			return nil, err
		}
		c := mesh.Check{Rule: "secret", Want: m.Name, Limit: "there, set " + kept.Set.Format(time.DateTime) + " UTC", Pass: true}
		if !ok {
			c = judged(ruleSecretMissing, m.Name, noSecret(m.Name))
			c.Limit = "not there"
		}
		out = append(out, c)
	}
	return out, nil
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
