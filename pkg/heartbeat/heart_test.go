package heartbeat

import (
	"bytes"
	"context"
	"crypto/sha256"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"peercompute/pkg/identity"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
	"peercompute/pkg/wire"
)

// node is a heart with a clock, logs and a network that a test moves by hand.
type node struct {
	t     *testing.T
	path  string
	key   *identity.Key
	heart *Heart
	store *store.Store

	mu     sync.Mutex
	now    time.Time
	log    []wire.Head // what its trust log holds
	free   *wire.Capacity
	peers  map[mesh.PeerID]*node
	down   bool
	alarms []string
	rolled []*wire.Heartbeat
	beats  [][]byte // as sent
	pulses [][]byte // as received
}

func newNode(t *testing.T) *node {
	t.Helper()
	dir := t.TempDir()
	key, err := identity.Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, path: filepath.Join(dir, store.FileName), key: key, now: time.UnixMilli(1767225600000), peers: map[mesh.PeerID]*node{}}
	n.open()
	t.Cleanup(func() { n.store.Close() })
	return n
}

func (n *node) open() {
	st, err := store.Open(n.path)
	if err != nil {
		n.t.Fatal(err)
	}
	n.store = st
	n.heart, err = New(Config{
		Key: n.key, Store: st, Program: "v1", Log: slog.New(slog.DiscardHandler), Now: n.clock,
		Peers: func() (out []mesh.PeerID) {
			n.mu.Lock()
			defer n.mu.Unlock()
			for p := range n.peers {
				out = append(out, p)
			}
			return out
		},
		Denied: func() bool { return false },
		Known: func(p mesh.PeerID) (mesh.PeerID, bool) {
			n.mu.Lock()
			defer n.mu.Unlock()
			return p, n.peers[p] != nil
		},
		Connected: func(p mesh.PeerID) bool { return n.reach(p) != nil },
		Exchange:  n.exchange,
		Self: func(mesh.PeerID) Self {
			n.mu.Lock()
			defer n.mu.Unlock()
			s := Self{Incarnation: n.store.Incarnation(), Free: n.free}
			if len(n.log) > 0 {
				s.Trust = n.log[len(n.log)-1]
			}
			return s
		},
		Mine: func(p mesh.PeerID) bool { return p == n.key.ID },
		Contains: func(trust, _ wire.Head, _ time.Time) (bool, error) {
			n.mu.Lock()
			defer n.mu.Unlock()
			return trust.Seq == 0 || slices.Contains(n.log, trust), nil
		},
		RolledBack: func(_ context.Context, _ mesh.PeerID, e *wire.Heartbeat) { n.rolled = append(n.rolled, e) },
		Alarm:      func(_ context.Context, kind string, _ mesh.PeerID) { n.alarms = append(n.alarms, kind) },
	})
	if err != nil {
		n.t.Fatal(err)
	}
}

// restart ends the node and starts it from the state file.
func (n *node) restart() {
	n.heart.flush(n.t.Context())
	if err := n.store.Close(); err != nil {
		n.t.Fatal(err)
	}
	n.open()
}

func (n *node) clock() time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.now
}

func (n *node) reach(p mesh.PeerID) *node {
	n.mu.Lock()
	defer n.mu.Unlock()
	other := n.peers[p]
	if other == nil || other.down {
		return nil
	}
	return other
}

func (n *node) exchange(ctx context.Context, p mesh.PeerID, beat []byte) ([]byte, time.Duration, error) {
	other := n.reach(p)
	if other == nil {
		return nil, 0, mesh.Errorf(mesh.Unavailable, "cannot reach it")
	}
	n.beats = append(n.beats, beat)
	pulse := other.heart.Receive(ctx, n.key.ID, beat)
	if pulse == nil {
		return nil, 0, mesh.Errorf(mesh.Unavailable, "reset")
	}
	n.pulses = append(n.pulses, pulse)
	return pulse, 2 * time.Millisecond, nil
}

// write adds an entry to the node's log.
func (n *node) write(text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.log = append(n.log, wire.Head{Seq: uint64(len(n.log) + 1), Hash: sha256.Sum256([]byte(text))})
}

func (n *node) pass(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.now = n.now.Add(d)
}

func pair(t *testing.T) (a, b *node) {
	t.Helper()
	a, b = newNode(t), newNode(t)
	a.peers[b.key.ID], b.peers[a.key.ID] = b, a
	return a, b
}

// beat lets from send one heartbeat to to, a second after the one before.
func beat(t *testing.T, from, to *node) {
	t.Helper()
	from.pass(time.Second)
	to.pass(time.Second)
	if !from.heart.beat(t.Context(), to.key.ID) {
		t.Fatal("no answer")
	}
}

func TestLiveness(t *testing.T) {
	a, b := pair(t)
	if v := a.heart.View(b.key.ID); v.State != Unknown {
		t.Fatalf("before anything was heard: %+v", v)
	}
	b.free = &wire.Capacity{Workloads: 3}
	beat(t, b, a)
	if v := a.heart.View(b.key.ID); v.State != Alive || v.Program != "v1" || v.Free == nil || v.Free.Workloads != 3 || !v.Seen.Equal(a.now) {
		t.Fatalf("after its heartbeat: %+v", v)
	}
	if v := b.heart.View(a.key.ID); v.State != Alive || v.RTT != 2*time.Millisecond || v.ClockOff() {
		t.Fatalf("after its answer: %+v", v)
	}
	a.pass(3*DefaultInterval - time.Second)
	if v := a.heart.View(b.key.ID); v.State != Alive {
		t.Fatalf("within three intervals: %+v", v)
	}
	a.pass(2 * time.Second)
	if v := a.heart.View(b.key.ID); v.State != Away || v.Free != nil {
		t.Fatalf("after three intervals: %+v", v)
	}
	b.pass(3*DefaultInterval + time.Second)
	beat(t, b, a)
	// A connection that is gone and cannot be made again: away at once.
	b.down = true
	a.pass(time.Second)
	if a.heart.beat(t.Context(), b.key.ID) {
		t.Fatal("a node that is down answers")
	}
	if v := a.heart.View(b.key.ID); v.State != Away || v.Reason == "" {
		t.Fatalf("after a failed attempt: %+v", v)
	}
}

// A peer whose clock is wrong is seen to be alive, and what is wrong is said.
func TestWrongClockIsSaid(t *testing.T) {
	a, b := pair(t)
	b.pass(3 * time.Minute)
	beat(t, a, b)
	if v := a.heart.View(b.key.ID); v.State != Alive || !v.ClockOff() || v.Offset.Round(time.Second) != 3*time.Minute {
		t.Fatalf("a sees %+v; want it alive with its clock 3m ahead", v)
	}
	if v := b.heart.View(a.key.ID); v.State == Alive || v.Offset.Round(time.Second) != -3*time.Minute {
		t.Fatalf("b sees %+v; want the clock 3m behind, and no sign of life counted", v)
	}
	b.pass(-3 * time.Minute)
	beat(t, a, b)
	if v := b.heart.View(a.key.ID); v.State != Alive || v.ClockOff() {
		t.Fatalf("with the clock right: %+v", v)
	}
}

func TestRefusedHeartbeats(t *testing.T) {
	a, b := pair(t)
	c := newNode(t)
	b.peers[c.key.ID] = c
	beat(t, a, b)
	old := a.beats[0]
	refusal := func(conn *node, data []byte) string {
		t.Helper()
		raw := b.heart.Receive(t.Context(), conn.key.ID, data)
		if raw == nil {
			return "reset"
		}
		p, err := wire.OpenPulse(raw, b.key.ID, conn.key.ID, data)
		if err != nil {
			t.Fatal(err)
		}
		if p.Error == nil {
			return ""
		}
		return p.Error.Rule
	}
	seal := func(n *node, edit func(*wire.Heartbeat)) []byte {
		h := wire.Heartbeat{Version: 1, From: n.key.ID, To: b.key.ID, Time: b.clock().UnixMilli(), Nonce: wire.NewNonce(), Incarnation: a.store.Incarnation()}
		edit(&h)
		data, err := wire.SealHeartbeat(n.key.Private, h)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	seen := b.heart.View(a.key.ID).Seen
	b.pass(time.Second)
	for name, c := range map[string]struct {
		conn *node
		data []byte
		rule string
	}{
		"replayed":            {a, old, "heartbeat.nonce"},
		"another node's":      {c, old, "heartbeat.signer"},
		"in another's name":   {c, seal(c, func(h *wire.Heartbeat) { h.From = a.key.ID }), "heartbeat.signer"},
		"for another node":    {a, seal(a, func(h *wire.Heartbeat) { h.To = c.key.ID }), "heartbeat.to"},
		"61 s old":            {a, seal(a, func(h *wire.Heartbeat) { h.Time -= 61_000 }), "heartbeat.time"},
		"61 s in the future":  {a, seal(a, func(h *wire.Heartbeat) { h.Time += 61_000 }), "heartbeat.time"},
		"of another version":  {a, seal(a, func(h *wire.Heartbeat) { h.Version = 2 }), "wire.version"},
		"no heartbeat at all": {a, []byte("hello"), "wire.envelope"},
		"of a stranger":       {newNode(t), old, "reset"},
	} {
		if got := refusal(c.conn, c.data); got != c.rule {
			t.Errorf("%s: refused by %q, want %q", name, got, c.rule)
		}
	}
	if v := b.heart.View(a.key.ID); !v.Seen.Equal(seen) {
		t.Error("a refused heartbeat counts as a sign of life")
	}
	if got := refusal(a, seal(a, func(h *wire.Heartbeat) { h.Time -= 59_000 })); got != "" {
		t.Errorf("59 s old: refused by %q", got)
	}
}

// One peer cannot make this node verify signatures without end.
func TestHeartbeatsAreRateLimited(t *testing.T) {
	a, b := pair(t)
	beat(t, a, b)
	answered := 0
	for range 1000 {
		if b.heart.Receive(t.Context(), a.key.ID, a.beats[0]) != nil {
			answered++
		}
	}
	if answered > 2*burstPerPeer {
		t.Errorf("%d of 1000 heartbeats at once were looked at", answered)
	}
}

// A node whose state file was rolled back is told so, by its own signature; its
// peers raise an alarm. Both also after the witness restarted.
func TestRolledBackStateIsNoticed(t *testing.T) {
	for _, restart := range []bool{false, true} {
		a, b := pair(t)
		a.write("one")
		beat(t, a, b)
		snapshot := slices.Clone(a.log)
		a.write("two")
		beat(t, a, b)
		if restart {
			b.restart()
		}
		a.log = snapshot // here the disk is put back
		beat(t, a, b)
		if len(a.rolled) != 1 || a.rolled[0].Trust.Seq != 2 {
			t.Fatalf("a was shown %+v; want its heartbeat with two entries", a.rolled)
		}
		if !slices.Equal(b.alarms, []string{AlarmRolledBack}) {
			t.Fatalf("b raised %v", b.alarms)
		}
		// Nothing else happens to those who go on.
		beat(t, b, a)
		if len(b.rolled) != 0 || len(a.alarms) != 0 {
			t.Fatalf("b was shown %v, a raised %v", b.rolled, a.alarms)
		}
	}
}

// A log that was rewritten and then grew past what was seen is found out as soon
// as the node is shown what it signed.
func TestRewrittenLogIsNoticed(t *testing.T) {
	a, b := pair(t)
	a.write("one")
	a.write("two")
	beat(t, a, b)
	a.log[1].Hash[0]++
	beat(t, a, b)
	if len(a.rolled) != 1 || !slices.Equal(b.alarms, []string{AlarmRolledBack}) {
		t.Fatalf("changed in place: a was shown %d, b raised %v", len(a.rolled), b.alarms)
	}
	a, b = pair(t)
	a.write("one")
	a.write("two")
	beat(t, a, b)
	a.log[1].Hash[0]++
	a.write("three")
	beat(t, a, b)
	if len(a.rolled) != 1 {
		t.Fatal("changed and grown: a does not notice")
	}
}

func TestHonestLogsRaiseNothing(t *testing.T) {
	a, b := pair(t)
	for i := range 30 {
		if i%3 == 0 {
			a.write(string(rune('a' + i)))
		}
		beat(t, a, b)
		beat(t, b, a)
		if i == 10 {
			b.restart()
		}
		if i == 20 {
			a.restart()
		}
	}
	if len(a.rolled)+len(b.rolled)+len(a.alarms)+len(b.alarms) != 0 {
		t.Fatalf("a was shown %d, b %d; a raised %v, b %v", len(a.rolled), len(b.rolled), a.alarms, b.alarms)
	}
	// One that arrives late, out of order, proves nothing.
	a.write("more")
	slow := a.beats[len(a.beats)-1]
	beat(t, a, b)
	b.heart.peers[a.key.ID].memory = memory{} // as if it had not been received before
	if b.heart.Receive(t.Context(), a.key.ID, slow) == nil || len(b.alarms) != 0 {
		t.Fatalf("a late heartbeat raised %v", b.alarms)
	}
}

// Evidence counts only if this node signed it for the state file that it has.
func TestFalseEvidenceIsIgnored(t *testing.T) {
	a, b := pair(t)
	self := a.heart.cfg.Self(b.key.ID)
	for name, c := range map[string]struct {
		key *identity.Key
		inc wire.Incarnation
	}{"signed by the accuser": {b.key, self.Incarnation}, "of another state file": {a.key, wire.Incarnation{9}}} {
		data, err := wire.SealHeartbeat(c.key.Private, wire.Heartbeat{Version: 1, From: c.key.ID, To: b.key.ID, Incarnation: c.inc, Trust: wire.Head{Seq: 99}})
		if err != nil {
			t.Fatal(err)
		}
		a.heart.examine(t.Context(), b.key.ID, data)
		if len(a.rolled) != 0 {
			t.Errorf("%s: it counts", name)
		}
	}
}

// A new state file is pointed out; two that take turns are a stolen key, or a
// backup that was restored beside the original.
func TestTwoNodesWithOneIdentity(t *testing.T) {
	a, b := pair(t)
	twin := newNode(t)
	twin.key = a.key
	twin.heart.cfg.Key = a.key
	twin.peers[b.key.ID] = b
	beat(t, a, b)
	twin.pass(time.Second)
	beat(t, twin, b)
	if !slices.Equal(b.alarms, []string{AlarmNewState}) || len(twin.alarms) != 0 {
		t.Fatalf("after the second: b raised %v, the twin %v", b.alarms, twin.alarms)
	}
	a.pass(time.Second)
	beat(t, a, b)
	if !slices.Equal(b.alarms, []string{AlarmNewState, AlarmDoubled}) || !slices.Equal(a.alarms, []string{AlarmSelfTwice}) {
		t.Fatalf("after the first again: b raised %v, the first %v", b.alarms, a.alarms)
	}
	twin.pass(time.Second)
	beat(t, twin, b)
	if !slices.Equal(twin.alarms, []string{AlarmSelfTwice}) {
		t.Fatalf("the twin raised %v", twin.alarms)
	}
}

// Nothing is kept of a peer that is removed.
func TestRemovedPeerIsForgotten(t *testing.T) {
	a, b := pair(t)
	beat(t, a, b)
	beat(t, b, a)
	b.heart.flush(t.Context())
	rows := func() (n int) {
		if err := b.store.View(func(tx *store.Tx) error { n = tx.Count(store.Witness); return nil }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if rows() != 1 || len(b.heart.Countersigned()) != 1 {
		t.Fatalf("%d rows", rows())
	}
	delete(b.peers, a.key.ID)
	if err := b.heart.Forget(t.Context()); err != nil {
		t.Fatal(err)
	}
	if rows() != 0 || len(b.heart.peers) != 0 || len(b.heart.witness.sights) != 0 || len(b.heart.sched.slots) != 0 || len(b.heart.last) != 0 {
		t.Error("something is left of a removed peer")
	}
	if b.heart.Receive(t.Context(), a.key.ID, a.beats[0]) != nil {
		t.Error("a removed peer is answered")
	}
	if len(b.heart.peers) != 0 {
		t.Error("its heartbeat left something behind")
	}
}

// What peers countersign is a proof that does not depend on this node.
func TestCountersignature(t *testing.T) {
	a, b := pair(t)
	a.write("one")
	beat(t, a, b)
	a.restart()
	got := a.heart.Countersigned()
	if len(got) != 1 || got[0].Peer != b.key.ID {
		t.Fatalf("kept %+v", got)
	}
	p, err := wire.OpenPulse(got[0].Pulse, b.key.ID, a.key.ID, got[0].Beat)
	if err != nil || p.Error != nil {
		t.Fatalf("the countersignature does not hold: %v", err)
	}
	h, err := wire.OpenOwnHeartbeat(got[0].Beat, func(p mesh.PeerID) bool { return p == a.key.ID })
	if err != nil || h.Trust != a.log[0] || !bytes.Equal(a.beats[0], got[0].Beat) {
		t.Fatalf("it is about %+v, %v", h, err)
	}
}

// What one exchange costs, both sides together.
func BenchmarkExchange(b *testing.B) {
	key, _ := identity.Create(b.TempDir())
	other, _ := identity.Create(b.TempDir())
	h := wire.Heartbeat{Version: 1, From: key.ID, To: other.ID, Nonce: wire.NewNonce(), Program: "v0.0.0", Trust: wire.Head{Seq: 1}, Free: &wire.Capacity{}}
	n := 0
	for b.Loop() {
		data, err := wire.SealHeartbeat(key.Private, h)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := wire.OpenHeartbeat(data, key.ID, other.ID); err != nil {
			b.Fatal(err)
		}
		pulse, err := wire.SealPulse(other.Private, wire.NewPulse(data, other.ID, key.ID, time.Now()))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := wire.OpenPulse(pulse, other.ID, key.ID, data); err != nil {
			b.Fatal(err)
		}
		n = len(data) + len(pulse)
	}
	b.ReportMetric(float64(n), "bytes/op")
}
