package node

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"time"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
	"peercompute/pkg/request"
	"peercompute/pkg/secret"
	"peercompute/pkg/store"
	"peercompute/pkg/supervisor"
	"peercompute/pkg/wire"
)

// This file keeps the secrets of whoever deploys here. A value is in the clear only
// between its sealed form and the one on disk, and when a container that gets it starts.

// keptSecret is one as it lies in the state file.
type keptSecret struct {
	Owner  mesh.PeerID `json:"owner"`
	Name   string      `json:"name"`
	Locked []byte      `json:"locked"` // by the vault
	Set    time.Time   `json:"set"`
}

func secretKey(owner mesh.PeerID, name string) []byte { return []byte(owner.String() + "/" + name) }

func eachSecret(tx *store.Tx, owner mesh.PeerID, fn func(keptSecret) error) error {
	prefix := []byte(owner.String() + "/")
	return tx.Each(store.Secrets, prefix, func(k, _ []byte) (bool, error) {
		if !bytes.HasPrefix(k, prefix) {
			return false, nil
		}
		var s keptSecret
		if _, err := tx.GetJSON(store.Secrets, k, &s); err != nil {
			return false, err
		}
		return true, fn(s)
	})
}

// SecretsOf reads the values that a workload's spec names, for its runtime.
func SecretsOf(ctx context.Context, st *store.Store, home string, w mesh.Workload) (map[string][]byte, error) {
	v, err := secret.OpenVault(home)
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	err = st.View(func(tx *store.Tx) error {
		for _, m := range w.Spec.Secrets {
			var s keptSecret
			ok, err := tx.GetJSON(store.Secrets, secretKey(w.Owner, m.Name), &s)
			if err != nil {
				return err
			}
			if !ok {
				return noSecret(m.Name)
			}
			if out[m.File()], err = v.Unlock(s.Locked); err != nil {
				return mesh.Errorf(mesh.Internal, "the secret %s cannot be read", m.Name).WithHint("set it again: peerctl secret set %s", m.Name).Because(err)
			}
		}
		return ctx.Err()
	})
	return out, err
}

const ruleSecretMissing = "secret.missing"

func noSecret(name string) error {
	return mesh.Errorf(mesh.NotFound, "there is no secret %s of yours here", name).WithRule(ruleSecretMissing).
		WithHint("set it first: peerctl secret set %s --peer PEER", name)
}

// secretsReady requires that the secrets of a spec are here.
func secretsReady(tx *store.Tx, owner mesh.PeerID, s mesh.Spec) error {
	for _, m := range s.Secrets {
		if tx.Get(store.Secrets, secretKey(owner, m.Name)) == nil {
			return noSecret(m.Name)
		}
	}
	return nil
}

// secretUse is which of owner's workloads get which of its secrets, now or with the
// revision that comes.
func secretUse(tx *store.Tx, owner mesh.PeerID) (map[string][]string, error) {
	used := map[string][]string{}
	err := supervisor.Each(tx, func(r supervisor.Record) error {
		if r.Workload.Owner != owner || r.Desired == supervisor.Remove {
			return nil
		}
		all := slices.Clone(r.Workload.Spec.Secrets)
		if r.Next != nil {
			all = append(all, r.Next.Spec.Secrets...)
		}
		for _, m := range all {
			if !slices.Contains(used[m.Name], r.Workload.Spec.Name) {
				used[m.Name] = append(used[m.Name], r.Workload.Spec.Name)
			}
		}
		return nil
	})
	return used, err
}

func (n *Node) setSecret(owner mesh.PeerID, name string, value []byte) (change, error) {
	if _, ok := n.cfg.Runtimes[mesh.Container]; !ok {
		return change{}, mesh.Errorf(mesh.Unsupported, "this machine runs no containers, and nothing else gets secrets").WithRule("host.runtime")
	}
	v, err := secret.OpenVault(n.m.Home)
	if err != nil {
		return change{}, err
	}
	locked, err := v.Lock(value)
	if err != nil {
		return change{}, err
	}
	return change{after: func() {}, commit: func(tx *store.Tx) error {
		count := 0
		err := eachSecret(tx, owner, func(s keptSecret) error {
			if s.Name != name {
				count++
			}
			return nil
		})
		if err != nil {
			return err
		}
		if count >= mesh.MaxSecrets {
			return mesh.Errorf(mesh.Quota, "%d secrets of yours are kept here, the most that can be", count).WithRule("host.secrets").
				WithHint("remove one: peerctl secret rm NAME")
		}
		if err := tx.PutJSON(store.Secrets, secretKey(owner, name), keptSecret{Owner: owner, Name: name, Locked: locked, Set: n.m.Now().UTC()}); err != nil {
			return err
		}
		return n.noteSecret(tx, owner, "set-secret", name)
	}}, nil
}

// noteSecret records that a secret was set or removed: its name, and nothing of its value,
// not even how long it is.
func (n *Node) noteSecret(tx *store.Tx, owner mesh.PeerID, action, name string) error {
	return n.note(tx, owner, action, mesh.Workload{Owner: owner, Spec: mesh.Spec{Name: name}}, "")
}

func (n *Node) removeSecret(owner mesh.PeerID, name string) change {
	return change{after: func() {}, commit: func(tx *store.Tx) error {
		if tx.Get(store.Secrets, secretKey(owner, name)) == nil {
			return noSecret(name)
		}
		used, err := secretUse(tx, owner)
		if err != nil {
			return err
		}
		if who := used[name]; len(who) > 0 {
			return mesh.Errorf(mesh.Conflict, "the secret %s is in use by %s", name, strings.Join(who, ", ")).WithRule("secret.in-use").
				WithHint("deploy these without it, or remove them: peerctl rm %s", strings.Join(who, " "))
		}
		if err := tx.Delete(store.Secrets, secretKey(owner, name)); err != nil {
			return err
		}
		return n.noteSecret(tx, owner, "remove-secret", name)
	}}
}

func (n *Node) secrets(owner mesh.PeerID) (out []wire.KeptSecret, err error) {
	err = n.m.Store.View(func(tx *store.Tx) error {
		used, err := secretUse(tx, owner)
		if err != nil {
			return err
		}
		return eachSecret(tx, owner, func(s keptSecret) error {
			out = append(out, wire.KeptSecret{Name: s.Name, Set: s.Set.UnixMilli(), Used: used[s.Name]})
			return nil
		})
	})
	return out, err
}

// dropSecrets forgets all secrets of a peer that was removed.
func dropSecrets(tx *store.Tx, owner mesh.PeerID) error {
	var all []keptSecret
	err := eachSecret(tx, owner, func(s keptSecret) error { all = append(all, s); return nil })
	for _, s := range all {
		if err == nil {
			err = tx.Delete(store.Secrets, secretKey(owner, s.Name))
		}
	}
	return err
}

// rekeySecrets moves secrets to the new key of their owner.
func rekeySecrets(tx *store.Tx, from, to mesh.PeerID) error {
	var all []keptSecret
	err := eachSecret(tx, from, func(s keptSecret) error { all = append(all, s); return nil })
	for _, s := range all {
		if err == nil {
			err = tx.Delete(store.Secrets, secretKey(from, s.Name))
		}
		s.Owner = to
		if err == nil {
			err = tx.PutJSON(store.Secrets, secretKey(to, s.Name), s)
		}
	}
	return err
}

func (n *Node) onSetSecret(_ context.Context, c *request.Call) (request.Reply, error) {
	var in wire.SetSecret
	if err := wire.DecodeBody(c.Body, &in); err != nil {
		return request.Reply{}, err
	}
	if err := mayDeploy(c); err != nil {
		return request.Reply{}, err
	}
	value, err := secret.Open(n.m.Key, c.From, in.Name, in.Sealed)
	if err != nil {
		return request.Reply{}, err
	}
	ch, err := n.setSecret(c.From, in.Name, value)
	return done(ch), err
}

func (n *Node) onRemoveSecret(_ context.Context, c *request.Call) (request.Reply, error) {
	var in wire.RemoveSecret
	if err := wire.DecodeBody(c.Body, &in); err != nil {
		return request.Reply{}, err
	}
	return done(n.removeSecret(c.From, in.Name)), nil
}

func (n *Node) onSecrets(_ context.Context, c *request.Call) (request.Reply, error) {
	var in wire.Secrets
	if err := wire.DecodeBody(c.Body, &in); err != nil {
		return request.Reply{}, err
	}
	all, err := n.secrets(c.From)
	return request.Reply{Body: wire.SecretsReply{Secrets: all}}, err
}

// SetSecret keeps a secret here or on a peer, sealed to that.
func (a *api) SetSecret(ctx context.Context, peer, name string, value []byte) error {
	if err := mesh.ValidSecret(name, value); err != nil {
		return err
	}
	p, err := a.imagesAt(peer)
	if err != nil {
		return err
	}
	if self := a.n.m.Key.ID; p == self {
		ch, err := a.n.setSecret(self, name, value)
		if err != nil {
			return err
		}
		return a.n.apply(ctx, ch)
	}
	sealed, err := secret.Seal(a.n.m.Key.ID, p, name, value)
	if err != nil {
		return mesh.Errorf(mesh.Internal, "the secret cannot be sealed").Because(err)
	}
	return a.n.ask(ctx, p, wire.VerbSetSecret, wire.SetSecret{Name: name, Sealed: sealed}, nil)
}

// RemoveSecret forgets one.
func (a *api) RemoveSecret(ctx context.Context, peer, name string) error {
	p, err := a.imagesAt(peer)
	if err != nil {
		return err
	}
	if self := a.n.m.Key.ID; p == self {
		return a.n.apply(ctx, a.n.removeSecret(self, name))
	}
	return a.n.ask(ctx, p, wire.VerbRemoveSecret, wire.RemoveSecret{Name: name}, nil)
}

// Secrets lists those of this node, here or on a peer.
func (a *api) Secrets(ctx context.Context, peer string) ([]control.Secret, error) {
	p, err := a.imagesAt(peer)
	if err != nil {
		return nil, err
	}
	var all []wire.KeptSecret
	if p == a.n.m.Key.ID {
		all, err = a.n.secrets(p)
	} else {
		var reply wire.SecretsReply
		err = a.n.ask(ctx, p, wire.VerbSecrets, wire.Secrets{}, &reply)
		all = reply.Secrets
	}
	out := []control.Secret{}
	for _, s := range all {
		if len(out) >= mesh.MaxSecrets {
			break
		}
		one := control.Secret{Peer: a.n.m.Trust.Name(p), Name: forPeople(s.Name), Set: time.UnixMilli(s.Set).UTC()}
		for _, u := range s.Used {
			one.Used = append(one.Used, forPeople(u))
		}
		out = append(out, one)
	}
	return out, err
}
