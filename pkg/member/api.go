package member

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
	"peercompute/pkg/peernet"
	"peercompute/pkg/trust"
)

// api is the part of the local API that every node answers.
type api struct {
	m     *Member
	hooks Hooks
}

var _ control.Members = (*api)(nil)

func (a *api) Whoami(context.Context) (control.Whoami, error) {
	addrs := a.m.Net.Addrs()
	if addrs == nil {
		addrs = []string{}
	}
	return control.Whoami{ID: a.m.Key.ID, Addrs: addrs, Role: a.m.Role, Version: a.m.Version}, nil
}

func (a *api) Status(ctx context.Context) (control.Status, error) {
	who, err := a.Whoami(ctx)
	s := control.Status{
		Whoami: who, Uptime: a.m.Now().Sub(a.m.Started),
		Runtimes: []control.Runtime{}, Routes: []control.Route{}, Tunnels: []control.Tunnel{}, Warnings: []string{},
		PeerStates: []control.PeerState{},
	}
	if at, locked := a.m.Trust.Locked(); locked {
		why := ""
		if at.Reason != "" {
			why = ", because " + at.Reason
		}
		s.Warnings = append(s.Warnings, fmt.Sprintf("locked down since %s%s: nobody is allowed anything; end it with: peerctl unlock", at.Since.Format("2006-01-02 15:04:05 MST"), why))
	}
	if a.m.Store.Old() != nil {
		s.Warnings = append(s.Warnings, "this node was started with a state that is not the latest (--old-state); peers removed since may be trusted again: look through peerctl peers ls")
	}
	a.m.alarmWarnings(&s)
	a.m.rotationWarnings(&s)
	for _, g := range a.m.Trust.All() {
		s.Peers++
		life := a.m.life(g.Peer)
		if life.Connected {
			s.Connected++
		}
		s.PeerStates = append(s.PeerStates, control.PeerState{Name: g.Name, ID: g.Peer, Liveness: life})
	}
	if a.hooks.Status != nil {
		a.hooks.Status(&s)
	}
	return s, err
}

func (a *api) Peers(context.Context) ([]control.Peer, error) {
	return a.shown(a.m.Trust.All()), nil
}

func (a *api) Peer(_ context.Context, ref string) (control.Peer, error) {
	g, err := a.m.Trust.Find(ref)
	if err != nil {
		return control.Peer{}, err
	}
	return a.peer(g), nil
}

// AddPeer trusts a peer, or changes one that is trusted already.
func (a *api) AddPeer(ctx context.Context, in control.AddPeer) (control.Peer, error) {
	id, addrs, err := parsePeer(in)
	if err != nil {
		return control.Peer{}, err
	}
	return a.edit(ctx, id, func(g trust.Grant, known bool) (trust.Grant, error) {
		now := a.m.Now()
		if g.Expired(now) {
			g.Until, g.Ended = time.Time{}, false // to add it again is to trust it again
		}
		if !known {
			g = trust.Grant{Peer: id, Name: a.freeName(id), Quota: trust.DefaultQuota(), Added: now.UTC()}
		}
		if in.Name != "" {
			g.Name = in.Name
		}
		g.Addrs = slices.Clone(g.Addrs)
		for _, addr := range addrs {
			if !slices.Contains(g.Addrs, addr) {
				g.Addrs = append(g.Addrs, addr)
			}
		}
		err := change(&g, in.Change, now)
		return g, err
	})
}

func parsePeer(in control.AddPeer) (id mesh.PeerID, addrs []string, err error) {
	if in.ID != "" {
		if strings.HasPrefix(in.ID, "/") {
			in.Addrs = append([]string{in.ID}, in.Addrs...)
		} else if id, err = mesh.ParsePeerID(in.ID); err != nil {
			return "", nil, err
		}
	}
	for _, s := range in.Addrs {
		addr, of, err := peernet.ParseAddr(s)
		if err != nil {
			return "", nil, err
		}
		if of != "" && id != "" && of != id {
			return "", nil, mesh.Errorf(mesh.Invalid, "the address %s is of another peer than %s", s, id)
		}
		if of != "" {
			id = of
		}
		if addr != "" {
			addrs = append(addrs, addr)
		}
	}
	if id == "" {
		return "", nil, mesh.Errorf(mesh.Invalid, "no peer ID is given").WithHint("give the ID, or an address that ends in /p2p/ID; the other side prints both with: peerctl whoami")
	}
	return id, addrs, nil
}

func (a *api) freeName(id mesh.PeerID) string {
	s := strings.ToLower(id.String())
	name := "peer-" + s[len(s)-6:]
	for n := 2; ; n++ {
		if _, err := a.m.Trust.Find(name); err != nil {
			return name
		}
		name = fmt.Sprintf("peer-%s-%d", s[len(s)-6:], n)
	}
}

func (a *api) AllowPeer(ctx context.Context, ref string, c control.GrantChange) (control.Peer, error) {
	found, err := a.m.Trust.Find(ref)
	if err != nil {
		return control.Peer{}, err
	}
	return a.edit(ctx, found.Peer, func(g trust.Grant, known bool) (trust.Grant, error) {
		if !known {
			return g, mesh.Errorf(mesh.NotFound, "%s was just removed", found.Name).WithHint("to trust it again: peerctl peers invite")
		}
		err := change(&g, c, a.m.Now())
		return g, err
	})
}

// edit changes what is written of a peer, or trusts it.
func (a *api) edit(ctx context.Context, p mesh.PeerID, f func(g trust.Grant, known bool) (trust.Grant, error)) (control.Peer, error) {
	g, err := a.m.Trust.Edit(ctx, p, f)
	if err != nil {
		return control.Peer{}, err
	}
	a.m.welcome(g)
	a.m.tell("grant.put", g.Peer, "may "+strings.Join(g.Allow.Names(), ", "))
	return a.peer(g), nil
}
