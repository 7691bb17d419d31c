package member

import (
	"context"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"peercompute/pkg/audit"
	"peercompute/pkg/control"
	"peercompute/pkg/event"
	"peercompute/pkg/mesh"
	"peercompute/pkg/peernet"
	"peercompute/pkg/trust"
	"peercompute/pkg/wire"
)

// This file is pairing without a token: a stranger knocks, two persons compare a
// fingerprint, and one of them approves. It is off unless the owner lets strangers
// knock, and for as long as was said.

const (
	maxKnocking = 16               // who wait at once
	knockWait   = 10 * time.Minute // how long one may wait
	knockStep   = 15 * time.Second // for each message
	denyFor     = 24 * time.Hour
)

// room is where those who knock wait, as long as their stream lives.
type room struct {
	mu      sync.Mutex
	waiting map[mesh.PeerID]*knocker
}

// knocker is one who waits.
type knocker struct {
	control.Pending
	answer chan error // receives once: nil = approved, else why not
}

func newRoom() *room { return &room{waiting: map[mesh.PeerID]*knocker{}} }

// enter takes k in. One that knocks anew takes the place of its earlier knock.
func (r *room) enter(k *knocker) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if have := r.waiting[k.ID]; have != nil {
		have.tell(mesh.Errorf(mesh.Conflict, "the same machine knocked again").WithRule("knock.again"))
	} else if len(r.waiting) >= maxKnocking {
		return mesh.Errorf(mesh.Overloaded, "%d are waiting already", maxKnocking).WithRule("knock.waiting").
			WithHint("try again later, or ask for an invite: peerctl peers invite")
	}
	r.waiting[k.ID] = k
	return nil
}

func (r *room) leave(k *knocker) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting[k.ID] == k {
		delete(r.waiting, k.ID)
	}
}

// tell gives k its answer, unless it has one. The room's mu is held.
func (k *knocker) tell(err error) {
	select {
	case k.answer <- err:
	default:
	}
}

// find resolves a whole fingerprint or a whole ID. Less would not do: whoever
// chooses keys can choose how they begin.
func (r *room) find(ref string) (*knocker, error) {
	plain := wire.PlainFingerprint(ref)
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, k := range r.waiting {
		if id.String() == ref || wire.PlainFingerprint(k.Fingerprint) == plain {
			return k, nil
		}
	}
	return nil, mesh.Errorf(mesh.NotFound, "nobody who knocks has the fingerprint %q", ref).
		WithHint("type all of it as the other person reads it out; see who waits with: peerctl peers pending")
}

func (r *room) list() []control.Pending {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := []control.Pending{}
	for _, k := range r.waiting {
		out = append(out, k.Pending)
	}
	slices.SortFunc(out, func(a, b control.Pending) int { return a.Since.Compare(b.Since) })
	return out
}

// clear sends everybody away.
func (r *room) clear(why error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range r.waiting {
		k.tell(why)
	}
}

// knockable reports whether strangers may knock now.
func (m *Member) knockable() bool {
	_, open := m.Trust.Knocking()
	return open
}

// expecting reports whether a stranger may come in as a guest, for one reason or
// the other.
func (m *Member) expecting() bool { return m.Trust.Expecting() || m.knockable() }

// onKnock lets one who knocks wait for the owner's answer.
func (m *Member) onKnock(ctx context.Context, s *peernet.Stream) {
	s.SetDeadline(time.Now().Add(knockStep))
	data, err := wire.ReadMessage(s, wire.MaxKnock)
	if err != nil {
		s.Reset()
		return
	}
	k, err := wire.OpenKnock(data, s.Peer(), m.Key.ID)
	if err != nil {
		m.unanswered(s.Peer(), err)
		s.Reset()
		return
	}
	state := wire.KnockApproved
	if !m.Trust.Allowed(s.Peer()) { // else it was approved, and did not hear it
		err = m.wait(ctx, s, k)
	}
	if err != nil {
		m.unanswered(s.Peer(), err)
	}
	if m.answerKnock(s, k.Answer(state, err)) != nil {
		s.Reset()
	}
}

// unanswered puts on record that somebody knocked and was not let in.
func (m *Member) unanswered(p mesh.PeerID, err error) {
	e := mesh.AsError(err)
	m.Log.Info("a knock was not answered with yes", "peer", p, "err", err)
	m.Events.Publish(event.Event{Type: event.Trust, Name: "knock.refused", Peer: p, Rule: e.Rule, Detail: e.Msg})
	m.Audit.Note(audit.Entry{Actor: strangers, Action: "knock", Subject: p.String(), Rule: e.Rule, Outcome: audit.Refused, Detail: e.Msg})
}

func (m *Member) answerKnock(s *peernet.Stream, a wire.Knocked) error {
	out, err := wire.SealKnocked(m.Key.Private, a)
	if err != nil {
		return err
	}
	s.SetWriteDeadline(time.Now().Add(knockStep))
	return wire.WriteMessage(s, out)
}

// wait returns nil once the owner has approved, else why not.
func (m *Member) wait(ctx context.Context, s *peernet.Stream, k *wire.Knock) error {
	closed := mesh.Errorf(mesh.Denied, "strangers may not knock here now").WithRule("knock.closed").
		WithHint("ask its owner for: peerctl peers knock on; or for an invite: peerctl peers invite")
	until, open := m.Trust.Knocking()
	if !open {
		return closed
	}
	if at, denied, err := m.Trust.Denied(s.Peer()); err != nil || denied {
		return mesh.Errorf(mesh.Denied, "its owner refused this machine; asking again is of use from %s on", at.UTC().Format(time.DateTime)).
			WithRule("knock.denied").Because(err)
	}
	now := m.Now()
	limit := min(until.Sub(now), knockWait)
	one := &knocker{answer: make(chan error, 1), Pending: control.Pending{
		ID: s.Peer(), Fingerprint: wire.Fingerprint(s.Peer(), m.Key.ID), Addrs: cleanAddrs(k.Addrs),
		Remote: s.Conn().RemoteMultiaddr().String(), Since: now.UTC(), Until: now.Add(limit).UTC(),
	}}
	if name := strings.ToLower(k.Name); mesh.ValidLabel(name) {
		one.Name = name
	}
	if err := m.room.enter(one); err != nil {
		return err
	}
	defer m.room.leave(one)
	if err := m.Net.Keep(s, limit+knockStep); err != nil {
		return err
	}
	waiting := k.Answer(wire.KnockWaiting, nil)
	waiting.Wait = int64(limit / time.Second)
	if err := m.answerKnock(s, waiting); err != nil {
		return err
	}
	m.tell("knock", one.ID, one.Fingerprint)
	m.Log.Info("somebody knocks; answer with: peerctl peers approve", "peer", one.ID, "fingerprint", one.Fingerprint, "name", one.Name)
	gone := make(chan struct{})
	go func() { // it says nothing more, so whatever is read means that it left
		defer close(gone)
		s.SetReadDeadline(time.Now().Add(limit + knockStep))
		_, _ = io.ReadFull(s, make([]byte, 1))
	}()
	end := time.NewTimer(limit)
	defer end.Stop()
	select {
	case err := <-one.answer:
		return err
	case <-gone:
		return mesh.Errorf(mesh.Canceled, "the one who knocked left")
	case <-ctx.Done():
		return mesh.Errorf(mesh.Canceled, "the one who knocked was sent away")
	case <-end.C:
		return mesh.Errorf(mesh.Timeout, "nobody answered the knock").WithRule("knock.wait").
			WithHint("tell its owner to look at: peerctl peers pending; then knock again")
	}
}

// cleanAddrs keeps of what a stranger says what is an address.
func cleanAddrs(of []string) []string {
	out := []string{}
	for _, addr := range of {
		if clean, _, err := peernet.ParseAddr(addr); err == nil && clean != "" && len(out) < 8 && !slices.Contains(out, clean) {
			out = append(out, clean)
		}
	}
	return out
}

// Knocks says whether strangers may knock, and who waits.
func (a *api) Knocks(context.Context) (control.Knocking, error) {
	until, open := a.m.Trust.Knocking()
	return control.Knocking{Open: open, Until: until, Pending: a.m.room.list()}, nil
}

// LetKnock lets strangers knock for d, or no longer.
func (a *api) LetKnock(ctx context.Context, d time.Duration) (control.Knocking, error) {
	if _, err := a.m.Trust.LetKnock(ctx, d); err != nil {
		return control.Knocking{}, err
	}
	if d == 0 {
		a.m.room.clear(mesh.Errorf(mesh.Denied, "strangers may not knock here any more").WithRule("knock.closed"))
	}
	return a.Knocks(ctx)
}

// ApproveKnock trusts one who waits, and tells it so.
func (a *api) ApproveKnock(ctx context.Context, ref string, in control.Approve) (control.Peer, error) {
	k, err := a.m.room.find(ref)
	if err != nil {
		return control.Peer{}, err
	}
	g, known := a.m.Trust.Entry(k.ID)
	if !known || g.Expired(a.m.Now()) {
		g = trust.Grant{Peer: k.ID, Name: g.Name, Quota: trust.DefaultQuota(), Added: a.m.Now().UTC()}
	}
	if in.Name != "" {
		g.Name = in.Name
	}
	for _, addr := range k.Addrs {
		if !slices.Contains(g.Addrs, addr) && len(g.Addrs) < 16 {
			g.Addrs = append(g.Addrs, addr)
		}
	}
	if err := change(&g, in.Change, a.m.Now()); err != nil {
		return control.Peer{}, err
	}
	if g, err = a.m.Trust.Welcome(ctx, g, k.Name); err != nil {
		return control.Peer{}, err
	}
	a.m.welcome(g)
	a.m.tell("knock.approve", g.Peer, g.Name+" may "+strings.Join(g.Allow.Names(), ", "))
	a.m.room.mu.Lock()
	k.tell(nil)
	a.m.room.mu.Unlock()
	a.m.Log.Info("approved one who knocked", "peer", g.Peer, "name", g.Name, "allow", g.Allow.Names())
	return a.peer(g), nil
}

// DenyKnock sends one who waits away, and remembers it.
func (a *api) DenyKnock(ctx context.Context, ref string) (control.Pending, error) {
	k, err := a.m.room.find(ref)
	if err != nil {
		return control.Pending{}, err
	}
	if err := a.m.Trust.Deny(ctx, k.ID, denyFor); err != nil {
		return control.Pending{}, err
	}
	a.m.room.mu.Lock()
	k.tell(mesh.Errorf(mesh.Denied, "its owner said no").WithRule("knock.denied"))
	a.m.room.mu.Unlock()
	return k.Pending, nil
}

// Knock asks another node to trust this one, and waits until its owner decides. It
// is trusted here once it has said yes, or nothing changes.
func (a *api) Knock(ctx context.Context, in control.KnockAt, emit func(control.KnockEvent) error) error {
	addr, id, err := peernet.ParseAddr(in.Addr)
	switch {
	case err != nil:
		return err
	case id == "" || addr == "":
		return mesh.Errorf(mesh.Invalid, "%s does not say who is there", in.Addr).
			WithHint("the address must end in /p2p/ID; the other machine prints its own with: peerctl whoami")
	case id == a.m.Key.ID:
		return mesh.Errorf(mesh.Invalid, "that is this machine itself")
	}
	welcomed := func(g trust.Grant, known bool) (trust.Grant, error) {
		now := a.m.Now()
		if !known || g.Expired(now) {
			g = trust.Grant{Peer: id, Name: g.Name, Quota: trust.DefaultQuota(), Added: now.UTC()}
		}
		switch {
		case in.Name != "":
			g.Name = in.Name
		case g.Name == "":
			g.Name = a.freeName(id)
		}
		if !slices.Contains(g.Addrs, addr) {
			g.Addrs = append(slices.Clone(g.Addrs), addr)
		}
		err := change(&g, in.Change, now)
		return g, err
	}
	g, err := welcomed(a.m.Trust.Entry(id))
	if err == nil {
		err = a.m.Trust.Check(g)
	}
	if err != nil { // now, not after the other has said yes
		return err
	}
	dial, cancel := context.WithTimeout(ctx, knockStep)
	s, done, err := a.m.Net.Knock(dial, id, []string{addr}, wire.ProtocolKnock)
	cancel()
	if err != nil {
		return mesh.Errorf(mesh.KindOf(err), "cannot knock at %s", in.Addr).
			WithHint("is its peerd running, and does its owner let strangers knock (peerctl peers knock on)?").Because(err)
	}
	defer done()
	defer s.Reset()
	defer context.AfterFunc(ctx, s.Reset)()
	if err := a.m.askToKnock(s, id, in.As, emit); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return err
	}
	// The other side trusts this machine now. If the process dies here, knocking
	// again is answered with yes at once.
	p, err := a.edit(ctx, id, welcomed)
	if err != nil {
		return err
	}
	return emit(control.KnockEvent{Peer: &p})
}

func (m *Member) askToKnock(s *peernet.Stream, to mesh.PeerID, as string, emit func(control.KnockEvent) error) error {
	silent := func(err error) error {
		return mesh.Errorf(mesh.Unavailable, "the other side does not answer any more").
			WithHint("does its owner let strangers knock (peerctl peers knock on)? then knock again").Because(err)
	}
	k := wire.NewKnock(m.Key.ID, to, as, m.ownAddrs())
	data, err := wire.SealKnock(m.Key.Private, k)
	if err != nil {
		return err
	}
	s.SetDeadline(time.Now().Add(knockStep))
	if err := wire.WriteMessage(s, data); err != nil {
		return silent(err)
	}
	for waited := false; ; waited = true {
		data, err := wire.ReadMessage(s, wire.MaxKnock)
		if err != nil {
			return silent(err)
		}
		a, err := wire.OpenKnocked(data, k)
		if err != nil {
			return err
		}
		if a.State == wire.KnockApproved {
			return nil
		}
		if waited {
			return mesh.Errorf(mesh.Forged, "the other side says twice that we are to wait").WithRule("wire.knock")
		}
		limit := min(max(time.Duration(a.Wait), 0), trust.MaxKnocking/time.Second) * time.Second
		s.SetDeadline(time.Now().Add(limit + knockStep))
		err = emit(control.KnockEvent{Waiting: true, Fingerprint: wire.Fingerprint(m.Key.ID, to), Until: m.Now().Add(limit).UTC()})
		if err != nil {
			return err
		}
	}
}

// Discover lists the nodes that announce themselves on the local network, and says
// which of them are trusted here. It trusts nobody.
func (a *api) Discover(ctx context.Context, d time.Duration) ([]control.Neighbour, error) {
	found, err := a.m.Net.Discover(ctx, d)
	if err != nil {
		return nil, err
	}
	out := []control.Neighbour{}
	for _, f := range found {
		n := control.Neighbour{ID: f.ID, Name: f.Name, Addrs: f.Addrs}
		if g, known := a.m.Trust.Entry(f.ID); known {
			n.Name, n.Trusted = g.Name, a.m.Trust.Allowed(f.ID)
		}
		out = append(out, n)
	}
	slices.SortFunc(out, func(x, y control.Neighbour) int {
		return strings.Compare(x.Name+" "+x.ID.String(), y.Name+" "+y.ID.String())
	})
	return out, nil
}
