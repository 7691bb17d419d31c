package member

import (
	"context"
	"time"

	"peercompute/pkg/trust"
)

// This file is what happens when a grant ends. From that moment the trust list
// denies the peer on every stream and request by itself; here its connections are
// closed, and everybody who goes by the list hears of it. Its workloads are held by
// whoever runs them, and come back if the grant is renewed.

const (
	// finalAfter is how long a grant must have been past its end before that is
	// final. A clock that is wrong for less does no lasting harm, and one that is
	// set back later brings nobody back.
	finalAfter = time.Hour
	expireLook = 15 * time.Second // the clock may be set, and the machine may sleep
)

// expire watches grants end until ctx does.
func (m *Member) expire(ctx context.Context) error {
	wake := make(chan struct{}, 1)
	m.OnTrust(func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	})
	ended := map[trustID]time.Time{} // since when, by the clock that cannot be set
	for {
		wait := m.endThem(ctx, ended)
		t := time.NewTimer(wait)
		select {
		case <-wake:
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil
		}
		t.Stop()
	}
}

// trustID is one grant with its end: renewed, it is another.
type trustID struct {
	peer  string
	until int64
}

// endThem cuts off those whose grant has ended, and says when to look again.
func (m *Member) endThem(ctx context.Context, ended map[trustID]time.Time) time.Duration {
	now, wait := m.Now(), 24*time.Hour
	live := map[trustID]bool{}
	for _, g := range m.Trust.All() {
		if g.Until.IsZero() {
			continue
		}
		id := trustID{string(g.Peer), g.Until.UnixNano()}
		if !g.Expired(now) {
			wait = min(wait, expireLook, max(g.Until.Sub(now), time.Millisecond))
			continue
		}
		live[id] = true
		since, seen := ended[id]
		switch {
		case !seen:
			ended[id] = time.Now()
			m.cutOff(g)
			wait = min(wait, expireLook)
		case !g.Ended && time.Since(since) >= finalAfter:
			if err := m.Trust.End(ctx, g.Peer); err != nil && ctx.Err() == nil {
				m.Log.Error("cannot write down that a grant has ended", "peer", g.Peer, "err", err)
				wait = min(wait, expireLook)
			}
		case !g.Ended:
			wait = min(wait, expireLook)
		}
	}
	for id := range ended {
		if !live[id] { // renewed, or the clock was set back
			delete(ended, id)
		}
	}
	return wait
}

func (m *Member) cutOff(g trust.Grant) {
	if err := m.Net.Disconnect(g.Peer); err != nil {
		m.Log.Warn("cannot close a connection cleanly", "peer", g.Peer, "err", err)
	}
	m.Gate.Forget(g.Peer)
	m.Client.Forget(g.Peer)
	m.Log.Info("a grant has ended: the peer is denied", "peer", g.Peer, "name", g.Name, "until", g.Until)
	m.trustChanged()
	m.tell("grant.end", g.Peer, g.Name)
}
