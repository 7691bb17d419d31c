package member

import (
	"time"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
	"peercompute/pkg/trust"
)

// This file is grants as the local API shows and changes them.

// Bounds of when a grant ends.
const maxGrantFor = 100 * 365 * 24 * time.Hour

func (a *api) peer(g trust.Grant) control.Peer { return a.shown([]trust.Grant{g})[0] }

// shown is grants with what is true of their peers now.
func (a *api) shown(grants []trust.Grant) []control.Peer {
	var usage map[mesh.PeerID]control.Usage
	if a.hooks.Usage != nil {
		var err error
		if usage, err = a.hooks.Usage(); err != nil {
			a.m.Log.Error("cannot read what peers use", "err", err)
		}
	}
	now, out := a.m.Now(), []control.Peer{}
	for _, g := range grants {
		p := control.Peer{ID: g.Peer, Name: g.Name, Addrs: list(g.Addrs), Added: g.Added, Grant: showGrant(g, now)}
		p.Remote, p.Connected = a.m.Net.Connected(g.Peer)
		p.Liveness = a.m.life(g.Peer)
		if usage != nil {
			u := usage[g.Peer]
			p.Usage = &u
		}
		out = append(out, p)
	}
	return out
}

func showGrant(g trust.Grant, now time.Time) control.Grant {
	return control.Grant{
		Allow: g.Allow.Names(), Workloads: g.Quota.Workloads, Resources: g.Quota.Resources, Names: g.Quota.Names, Requests: g.Quota.Requests,
		FuelDay: g.Quota.FuelDay, Images: list(g.Quota.Images), Egress: list(g.Quota.Egress), SignedBy: list(g.Quota.SignedBy), Until: g.Until, Ended: g.Expired(now),
	}
}

// list is never null for programs that read it.
func list(of []string) []string {
	if of == nil {
		return []string{}
	}
	return of
}

// change edits a grant; what is not said stays.
func change(g *trust.Grant, c control.GrantChange, now time.Time) error {
	if c.Allow != nil {
		allow, err := trust.ParseAllow(*c.Allow)
		if err != nil {
			return err
		}
		g.Allow = allow
	}
	set(&g.Quota.Workloads, c.Workloads)
	set(&g.Quota.Resources.MilliCPU, c.MilliCPU)
	set(&g.Quota.Resources.Memory, c.Memory)
	set(&g.Quota.Resources.Disk, c.Disk)
	set(&g.Quota.Names, c.Names)
	set(&g.Quota.Requests, c.Requests)
	set(&g.Quota.FuelDay, c.FuelDay)
	set(&g.Quota.Images, c.Images)
	set(&g.Quota.Egress, c.Egress)
	set(&g.Quota.SignedBy, c.SignedBy)
	if c.Until == nil {
		return nil
	}
	until := c.Until.At
	if c.Until.For != 0 {
		until = now.Add(min(max(c.Until.For, -1), maxGrantFor))
	}
	if !until.IsZero() && (!until.After(now) || until.Sub(now) > maxGrantFor) {
		return mesh.Errorf(mesh.Invalid, "a grant cannot end at %s: that is not ahead (or over a hundred years)", until.UTC().Format(time.DateTime)).
			WithHint("give a date to come or a time from now, such as --until 30d; to end trust now: peerctl peers remove")
	}
	g.Until, g.Ended = until.UTC(), false
	if until.IsZero() {
		g.Until = time.Time{}
	}
	return nil
}

func set[T any](p *T, v *T) {
	if v != nil {
		*p = *v
	}
}
