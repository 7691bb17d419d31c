package member

import (
	"context"
	"io"
	"slices"
	"time"

	"peercompute/pkg/alarm"
	"peercompute/pkg/mesh"
	"peercompute/pkg/peernet"
	"peercompute/pkg/request"
	"peercompute/pkg/trust"
	"peercompute/pkg/wire"
)

// This file takes in that a peer has changed its key, whether the peer says so
// itself or is asked because it answers with another key than was expected.

// onRotate is the rotate request. A handler has no effects of its own; this one has,
// because taking in a lineage twice is the same as once, and the trust log orders its
// own writes. A crash before the answer makes the sender ask again.
func (m *Member) onRotate(ctx context.Context, c *request.Call) (request.Reply, error) {
	var in wire.Lineage
	if err := wire.DecodeBody(c.Body, &in); err != nil {
		return request.Reply{}, err
	}
	s, err := m.succeed(ctx, c.From, in)
	if err != nil {
		return request.Reply{}, err
	}
	r := request.Reply{Body: wire.Empty{}, Settled: true}
	if !m.Now().Before(s.Until) {
		// The old key is denied already. What it has open goes at once, and what
		// carries this answer when it has arrived.
		r.Stream = func(_ context.Context, st *peernet.Stream) error {
			m.Net.ResetOthers(st)
			st.SetReadDeadline(time.Now().Add(answerTime))
			_, _ = io.Copy(io.Discard, io.LimitReader(st, 1)) // the asker closes its end
			m.dropKey(s.Old)
			return nil
		}
	}
	return r, nil
}

// succeed takes in a lineage that came over a connection of from's.
func (m *Member) succeed(ctx context.Context, from mesh.PeerID, l wire.Lineage) (trust.Succession, error) {
	m.removing.Lock()
	defer m.removing.Unlock()
	s, err := m.Trust.Succeed(context.WithoutCancel(ctx), l, m.rekey)
	if err != nil {
		if rule := mesh.AsError(err).Rule; rule == trust.RuleFork || rule == trust.RuleStale {
			m.raise(ctx, alarm.Alarm{
				Kind: "peer." + rule, Peer: m.Trust.Resolve(from),
				Text: m.Trust.Name(from) + " or somebody with its key tried to put another key in its place: " + mesh.AsError(err).Msg, Hint: mesh.AsError(err).Hint,
			})
		}
		return s, err
	}
	if s.Changed {
		m.moved(s)
	}
	return s, nil
}

// moved makes what is in memory follow a change of a peer's key.
func (m *Member) moved(s trust.Succession) {
	if g, ok := m.Trust.Entry(s.New); ok {
		m.Net.Learn(s.New, g.Addrs)
		m.tell("peer.rotated", s.New, g.Name+" had the key of "+s.Old.String())
		m.Log.Info("a peer has a new key", "name", g.Name, "old", s.Old, "new", s.New, "until", s.Until)
	}
	m.Client.Forget(s.Old)
	m.Gate.Forget(s.Old)
	m.Heart.Rekey(s.Old, s.New)
	m.mu.Lock()
	fs := slices.Clone(m.onRekeyed)
	m.mu.Unlock()
	for _, f := range fs {
		f(s.Old, s.New)
	}
	m.trustChanged()
	select {
	case m.lapsing <- struct{}{}:
	default:
	}
}

// dropKey ends what is open under a key that does not count any more.
func (m *Member) dropKey(p mesh.PeerID) {
	if err := m.Net.Disconnect(p); err != nil {
		m.Log.Warn("cannot close a former key's connections cleanly", "peer", p, "err", err)
	}
	m.Gate.Forget(p)
	m.Client.Forget(p)
}

// lapse ends replaced keys when their time is over. Trust is refused by the clock
// already; this closes what is open, and writes it down so that no clock undoes it.
func (m *Member) lapse(ctx context.Context) error {
	for {
		ended, next, err := m.Trust.Lapse(context.WithoutCancel(ctx))
		if err != nil {
			m.Log.Error("cannot write down that a key does not count any more", "err", err)
		}
		for _, p := range ended {
			m.Log.Info("a replaced key does not count any more", "peer", p, "name", m.Trust.Name(p))
			m.dropKey(p)
		}
		wait := time.Minute // clocks are set
		if !next.IsZero() {
			wait = min(wait, max(next.Sub(m.Now()), 100*time.Millisecond))
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-m.lapsing:
		case <-ctx.Done():
		}
		t.Stop()
		if ctx.Err() != nil {
			return nil
		}
	}
}

// refusedKey raises an alarm when a peer does not take this node's new key because
// another one came before.
func (m *Member) refusedKey(ctx context.Context, p mesh.PeerID, err error) {
	rule := mesh.AsError(err).Rule
	if rule != trust.RuleFork && rule != trust.RuleStale {
		return
	}
	m.raise(ctx, alarm.Alarm{
		Kind: "self." + rule, Peer: p,
		Text: m.Trust.Name(p) + " does not take this node's new key: " + mesh.AsError(err).Msg + ". Somebody else has the old key",
		Hint: "call the owner of " + m.Trust.Name(p) + ": it has to run peerctl peers remove for you, and invite you anew",
	})
}

const (
	lineageTime = 10 * time.Second
	answerTime  = 2 * time.Second
)

// onLineage tells a peer how this node's key follows from those it had before.
func (m *Member) onLineage(_ context.Context, s *peernet.Stream) {
	s.SetDeadline(time.Now().Add(lineageTime))
	all, err := m.changes()
	if err != nil || len(all) == 0 || !all[len(all)-1].Switched {
		s.Reset()
		return
	}
	data, err := wire.Marshal(lineage(all, all[len(all)-1].Seq))
	if err == nil {
		err = wire.WriteMessage(s, data)
	}
	if err != nil {
		s.Reset()
	}
}

// askSuccessor is for a peer that is not there any more: at its address answers
// another key. If that one follows from the key that is known, it is taken in.
func (m *Member) askSuccessor(ctx context.Context, known, answers mesh.PeerID) {
	if m.Trust.Resolve(answers) == known || m.Mine(answers) {
		return // it has not begun to use its new key yet
	}
	g, ok := m.Trust.Get(known)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lineageTime)
	defer cancel()
	s, done, err := m.Net.Knock(ctx, answers, g.Addrs, wire.ProtocolLineage)
	if err != nil {
		m.Log.Info("another key answers in a peer's place, and says nothing of it", "peer", known, "answers", answers, "err", err)
		return
	}
	defer done()
	defer s.Reset()
	defer context.AfterFunc(ctx, s.Reset)()
	data, err := wire.ReadMessage(s, wire.MaxLineage)
	var l wire.Lineage
	if err == nil {
		err = wire.Unmarshal(data, &l, wire.MaxLineage)
	}
	if err == nil {
		var steps []wire.Rotation
		if steps, err = l.Open(); err == nil && steps[len(steps)-1].New != answers {
			err = mesh.Errorf(mesh.Forged, "the lineage ends in another key").WithRule("rotation.chain")
		}
	}
	if err == nil {
		_, err = m.succeed(ctx, known, l)
	}
	if err != nil {
		m.Log.Info("another key answers in a peer's place", "peer", known, "answers", answers, "err", err)
	}
}
