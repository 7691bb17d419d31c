package heartbeat

import (
	"testing"
	"time"

	"peercompute/pkg/mesh"
	"peercompute/pkg/wire"
)

func TestWindow(t *testing.T) {
	now := time.UnixMilli(1767225600000)
	for _, c := range []struct {
		age  time.Duration
		want mesh.Kind
	}{
		{0, mesh.None},
		{59 * time.Second, mesh.None},
		{60 * time.Second, mesh.None},
		{60*time.Second + time.Millisecond, mesh.Stale},
		{61 * time.Second, mesh.Stale},
		{-59 * time.Second, mesh.None},
		{-61 * time.Second, mesh.Stale},
		{time.Duration(1<<62 - 1), mesh.Stale},
		{-time.Duration(1<<62 - 1), mesh.Stale},
	} {
		var m memory
		if err := m.admit(wire.NewNonce(), now.Add(-c.age).UnixMilli(), now); mesh.KindOf(err) != c.want {
			t.Errorf("%s old: %v, want %s", c.age, err, c.want)
		}
	}
	var m memory
	for _, sent := range []int64{1<<63 - 1, -1 << 63, 0} { // no overflow makes one pass
		if err := m.admit(wire.NewNonce(), sent, now); mesh.KindOf(err) != mesh.Stale {
			t.Errorf("sent at %d: %v, want Stale", sent, err)
		}
	}
}

// A heartbeat counts once, however clocks move, and what is remembered is bounded.
func TestReplayedHeartbeats(t *testing.T) {
	var m memory
	start := time.UnixMilli(1767225600000)
	type sent struct {
		n  wire.Nonce
		at int64
	}
	var all []sent
	now := start
	for range 200 {
		s := sent{wire.NewNonce(), now.UnixMilli()}
		if err := m.admit(s.n, s.at, now); err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
		now = now.Add(15 * time.Second)
		if len(m.seen) > 10 {
			t.Fatalf("%d nonces are remembered of a window that held 5", len(m.seen))
		}
	}
	for _, at := range []time.Time{now, now.Add(-time.Minute), now.Add(24 * time.Hour), start, start.Add(7 * time.Minute)} {
		for _, s := range all {
			if m.admit(s.n, s.at, at) == nil {
				t.Fatalf("sent %s after the start, replayed with the clock at %s after it: accepted", time.UnixMilli(s.at).Sub(start), at.Sub(start))
			}
		}
	}
	// The clock went far ahead and came back: the honest peer is heard at once.
	now = now.Add(15 * time.Second)
	if err := m.admit(wire.NewNonce(), now.UnixMilli(), now); err != nil {
		t.Fatalf("after the clock came back: %v", err)
	}
}

func TestFloodOfHeartbeats(t *testing.T) {
	var m memory
	now := time.UnixMilli(1767225600000)
	for i := range 2 * maxNonces {
		err := m.admit(wire.NewNonce(), now.UnixMilli(), now)
		if (err == nil) != (i < maxNonces) {
			t.Fatalf("number %d: %v", i, err)
		}
	}
	if len(m.seen) != maxNonces {
		t.Fatalf("%d remembered", len(m.seen))
	}
	now = now.Add(2*wire.HeartbeatDrift + time.Second)
	if err := m.admit(wire.NewNonce(), now.UnixMilli(), now); err != nil || len(m.seen) != 1 {
		t.Fatalf("two minutes later: %v, %d remembered", err, len(m.seen))
	}
}
