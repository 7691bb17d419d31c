package member

import (
	"context"
	"slices"
	"strings"
	"time"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
	"peercompute/pkg/peernet"
	"peercompute/pkg/trust"
	"peercompute/pkg/wire"
)

// This file is pairing in one string: one side makes an invite, the other joins
// by it, and both trust each other from then on.

const joinTime = 15 * time.Second

// Invite opens an invite and returns its token, which is shown this once.
func (a *api) Invite(ctx context.Context, in control.NewInvite) (control.Invite, error) {
	i := trust.Invite{Expires: a.m.Now().Add(in.TTL).UTC(), Uses: in.Uses, Name: in.Name}
	g := trust.Grant{Quota: trust.DefaultQuota()}
	if err := change(&g, in.Change, a.m.Now()); err != nil {
		return control.Invite{}, err
	}
	i.Allow, i.Quota, i.Until = g.Allow, g.Quota, g.Until
	i, err := a.m.Trust.Invite(ctx, i)
	if err != nil {
		return control.Invite{}, err
	}
	token, err := wire.Invite{
		Version: wire.Version, Peer: a.m.Key.ID, Addrs: a.m.ownAddrs(), Secret: i.Secret,
		Expires: i.Expires.UnixMilli(), Allow: i.Allow.Names(), Name: in.As,
	}.Token()
	out := showInvite(i)
	out.Token = token
	a.m.tell("invite.open", "", i.ID)
	return out, err
}

// ownAddrs are the addresses at which this node says that it can be dialled.
func (m *Member) ownAddrs() []string { return cleanAddrs(m.Net.Addrs()) }

// welcome makes known that g's peer is trusted from now on: it may be connected
// already, as a guest.
func (m *Member) welcome(g trust.Grant) {
	m.Net.Welcome(g.Peer, g.Addrs)
	m.trustChanged()
}

func showInvite(i trust.Invite) control.Invite {
	return control.Invite{ID: i.ID, Expires: i.Expires, Uses: i.Uses, Allow: i.Allow.Names(), Name: i.Name}
}

// Invites lists the open invites, without their tokens.
func (a *api) Invites(context.Context) ([]control.Invite, error) {
	all, err := a.m.Trust.Invites()
	out := []control.Invite{}
	for _, i := range all {
		out = append(out, showInvite(i))
	}
	return out, err
}

// WithdrawInvite closes an invite.
func (a *api) WithdrawInvite(ctx context.Context, id string) (control.Invite, error) {
	err := a.m.Trust.Withdraw(ctx, id)
	if err == nil {
		a.m.tell("invite.withdraw", "", id)
	}
	return control.Invite{ID: id}, err
}

// Join trusts the inviter and is trusted by it, or nothing changes here.
func (a *api) Join(ctx context.Context, in control.JoinInvite) (control.Peer, error) {
	i, err := wire.ParseToken(in.Token)
	if err != nil {
		return control.Peer{}, err
	}
	if i.Peer == a.m.Key.ID {
		return control.Peer{}, mesh.Errorf(mesh.Invalid, "that is an invite of this machine itself").WithHint("join with it on the other machine")
	}
	joined := func(g trust.Grant, known bool) (trust.Grant, error) {
		now := a.m.Now()
		if !known {
			g = trust.Grant{Peer: i.Peer, Quota: trust.DefaultQuota(), Added: now.UTC()}
			g.Name = a.joinName(i, in.Name)
		} else if in.Name != "" {
			g.Name = in.Name
		}
		if g.Expired(now) {
			g.Until, g.Ended = time.Time{}, false
		}
		g.Addrs = slices.Clone(g.Addrs)
		for _, addr := range i.Addrs {
			if _, _, err := peernet.ParseAddr(addr); err == nil && !slices.Contains(g.Addrs, addr) && len(g.Addrs) < 16 {
				g.Addrs = append(g.Addrs, addr)
			}
		}
		err := change(&g, in.Change, now)
		return g, err
	}
	if _, err := joined(a.m.Trust.Entry(i.Peer)); err != nil { // now, not after the other trusts this machine
		return control.Peer{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	s, done, err := a.m.Net.Knock(ctx, i.Peer, i.Addrs, wire.ProtocolJoin)
	if err != nil {
		return control.Peer{}, mesh.Errorf(mesh.KindOf(err), "cannot reach the one who invited").
			WithHint("is its peerd running, and the invite still open (it ends %s)?", time.UnixMilli(i.Expires).UTC().Format(time.DateTime)).Because(err)
	}
	defer done()
	defer s.Reset()
	defer context.AfterFunc(ctx, s.Reset)()
	if err := a.m.askToJoin(s, i, in.As); err != nil {
		return control.Peer{}, err
	}
	// The other side trusts this machine now. If the process dies here, joining
	// again with the same invite is refused, and peers add does the rest.
	return a.edit(ctx, i.Peer, joined)
}

func (a *api) joinName(i wire.Invite, wished string) string {
	name := wished
	if name == "" {
		name = i.Name
	}
	if name == "" {
		return a.freeName(i.Peer)
	}
	if _, err := a.m.Trust.Find(name); err != nil || wished != "" {
		return name
	}
	return a.freeName(i.Peer)
}

func (m *Member) askToJoin(s *peernet.Stream, i wire.Invite, as string) error {
	j := wire.NewJoin(i, m.Key.ID, as, m.ownAddrs())
	data, err := wire.SealJoin(m.Key.Private, j)
	if err != nil {
		return err
	}
	if err := wire.WriteMessage(s, data); err != nil {
		return unanswered(err)
	}
	answer, err := wire.ReadMessage(s, wire.MaxJoin)
	if err != nil {
		return unanswered(err)
	}
	return wire.OpenJoined(answer, j, i.Secret)
}

func unanswered(err error) error {
	return mesh.Errorf(mesh.Unavailable, "the one who invited did not answer").
		WithHint("the invite may be used up or expired; ask for a new one: peerctl peers invite").Because(err)
}

// onJoin answers one who knocks.
func (m *Member) onJoin(ctx context.Context, s *peernet.Stream) {
	s.SetDeadline(time.Now().Add(joinTime))
	data, err := wire.ReadMessage(s, wire.MaxJoin)
	if err != nil {
		s.Reset()
		return
	}
	j, err := wire.OpenJoin(data, s.Peer(), m.Key.ID)
	if err != nil {
		m.refusedJoin(s.Peer(), err)
		s.Reset()
		return
	}
	g, secret, err := m.Trust.Redeem(ctx, s.Peer(), strings.ToLower(j.Name), cleanAddrs(j.Addrs), func(have [16]byte) bool { return j.Knows(have) })
	var answer wire.Joined
	if err == nil {
		answer = j.Accept(secret)
		m.welcome(g)
		m.tell("join", g.Peer, g.Name+" may "+strings.Join(g.Allow.Names(), ", "))
		m.Log.Info("a peer joined by an invite", "peer", g.Peer, "name", g.Name, "allow", g.Allow.Names())
	} else {
		answer = j.Refuse(err)
		m.refusedJoin(s.Peer(), err)
	}
	out, err := wire.SealJoined(m.Key.Private, answer)
	if err == nil {
		err = wire.WriteMessage(s, out)
	}
	if err != nil {
		m.Log.Info("cannot answer a join", "peer", s.Peer(), "err", err)
		s.Reset()
	}
}
