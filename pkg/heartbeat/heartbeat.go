// Package heartbeat tells trusted peers that this node lives, and watches that
// they do: who is there, how far away, with which clock, and with which heads of
// its logs. What a peer once showed of its logs is kept as evidence, so that a
// state file that was rolled back, or a log that was rewritten, is noticed. The
// package sends nothing itself: whoever owns the network gives it Exchange.
package heartbeat

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"peercompute/pkg/identity"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
	"peercompute/pkg/wire"
)

// DefaultInterval is the time between two heartbeats to one peer, on average.
const DefaultInterval = 15 * time.Second

// The bounds of what a configuration may say.
const (
	MinInterval = time.Second
	MaxInterval = 5 * time.Minute
)

// ParseInterval reads an interval such as "15s".
func ParseInterval(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < MinInterval || d > MaxInterval {
		return 0, mesh.Errorf(mesh.Invalid, "%q is not a time from %s to %s, such as 15s", s, MinInterval, MaxInterval)
	}
	return d, nil
}

const (
	missed       = 3                // intervals without a sign of life after which a peer is away
	exchangeTime = 10 * time.Second // for one heartbeat and its answer
	maxDials     = 8                // peers dialled at once for no other reason than a heartbeat
	ratePerPeer  = 2                // heartbeats a second that one peer may send
	burstPerPeer = 20
)

// Config is what New needs.
type Config struct {
	Key      *identity.Key
	Store    *store.Store
	Now      func() time.Time
	Interval time.Duration // 0 = DefaultInterval
	Program  string        // this node's version
	Log      *slog.Logger
	Rand     func() float64 // in [0, 1); nil = the system's

	// Peers lists whom to watch. Denied says that nobody is to be sent to now.
	Peers  func() []mesh.PeerID
	Denied func() bool
	// Known resolves the peer at the other end of a connection to the one on the
	// list that it is; false = not trusted.
	Known func(conn mesh.PeerID) (mesh.PeerID, bool)
	// Connected reports whether there is a connection to a peer.
	Connected func(mesh.PeerID) bool
	// Exchange sends a heartbeat to a peer and returns its answer and the time
	// between the two. It dials if need be.
	Exchange func(ctx context.Context, p mesh.PeerID, beat []byte) (pulse []byte, rtt time.Duration, err error)
	// Self is what this node says of itself to a peer: incarnation, heads, and
	// what it could lend if that peer may know.
	Self func(to mesh.PeerID) Self
	// Mine says whether this node is, or was, the one with that ID.
	Mine func(mesh.PeerID) bool
	// Contains says whether this node's logs still contain these heads, which were
	// theirs at that time.
	Contains func(trust, audit wire.Head, at time.Time) (bool, error)
	// RolledBack is called when a peer has proved, by a heartbeat that this node
	// signed, that its logs have lost what they held.
	RolledBack func(ctx context.Context, by mesh.PeerID, evidence *wire.Heartbeat)
	// Alarm is called with what an owner must see.
	Alarm func(ctx context.Context, kind string, p mesh.PeerID)
}

// Self is what a node says of itself.
type Self struct {
	Incarnation  wire.Incarnation
	Trust, Audit wire.Head
	Free         *wire.Capacity
}

// The kinds of alarms that this package raises.
const (
	AlarmRolledBack = "peer.rolled-back" // a peer's logs do not continue what it showed before
	AlarmNewState   = "peer.new-state"   // a peer has begun a new state file
	AlarmDoubled    = "peer.doubled"     // two state files take turns under one peer's identity
	AlarmSelfTwice  = "self.doubled"     // a peer says so of this node
)

// Heart sends, receives and judges heartbeats.
type Heart struct {
	cfg     Config
	sched   *schedule
	witness *witness
	dials   chan struct{}

	mu    sync.Mutex
	peers map[mesh.PeerID]*peer
	last  map[mesh.PeerID]Self // what was last countersigned
}

// peer is what is known of one peer. Heart.mu guards it.
type peer struct {
	memory  memory
	limiter *rate.Limiter

	seen    time.Time // the last sign of life
	failed  time.Time // the last attempt to reach it that failed
	reason  string    // why
	rtt     time.Duration
	offset  time.Duration // its clock minus ours
	program string
	free    *wire.Capacity
}

// New prepares a heart; it beats in Run.
func New(cfg Config) (*Heart, error) {
	if cfg.Interval == 0 {
		cfg.Interval = DefaultInterval
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Float64
	}
	w, err := openWitness(cfg.Store)
	if err != nil {
		return nil, err
	}
	h := &Heart{
		cfg: cfg, witness: w, dials: make(chan struct{}, maxDials),
		peers: map[mesh.PeerID]*peer{}, last: map[mesh.PeerID]Self{},
	}
	h.sched = newSchedule(cfg.Interval, cfg.Rand, h.beat)
	return h, nil
}

// Run beats until ctx ends.
func (h *Heart) Run(ctx context.Context) error {
	h.sync(h.cfg.Interval)
	done := make(chan struct{})
	go func() {
		defer close(done)
		t := time.NewTicker(h.cfg.Interval)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				h.flush(ctx)
			case <-ctx.Done():
				return
			}
		}
	}()
	err := h.sched.run(ctx)
	<-done
	h.flush(context.WithoutCancel(ctx))
	return err
}

func (h *Heart) flush(ctx context.Context) {
	if err := h.witness.flush(ctx); err != nil && ctx.Err() == nil {
		h.cfg.Log.Error("cannot write down what was seen of the peers", "err", err)
	}
}

// PeersChanged takes in that the trust list changed. Nothing is kept of who is not
// on it any more.
func (h *Heart) PeersChanged() { h.sync(min(soonest, h.cfg.Interval)) }

func (h *Heart) sync(spread time.Duration) {
	peers := h.cfg.Peers()
	h.witness.keep(peers)
	h.mu.Lock()
	have := map[mesh.PeerID]*peer{}
	last := map[mesh.PeerID]Self{}
	for _, p := range peers {
		if was := h.peers[p]; was != nil {
			have[p] = was
		}
		if was, ok := h.last[p]; ok {
			last[p] = was
		}
	}
	h.peers, h.last = have, last
	h.mu.Unlock()
	if h.cfg.Denied() {
		peers = nil
	}
	h.sched.set(peers, spread)
}

// Forget drops all that is known of a removed peer, durably.
func (h *Heart) Forget(ctx context.Context) error {
	h.PeersChanged()
	return h.witness.flush(ctx)
}

// Rekey takes in that a peer has another key: what is known of it is that one's.
func (h *Heart) Rekey(from, to mesh.PeerID) {
	h.mu.Lock()
	if known := h.peers[from]; known != nil {
		h.peers[to] = known
		delete(h.peers, from)
	}
	if was, ok := h.last[from]; ok {
		h.last[to] = was
		delete(h.last, from)
	}
	h.mu.Unlock()
	h.witness.rekey(from, to)
	h.sched.rekey(from, to)
}

// PeerConnected takes in that a peer's first connection came or its last went.
func (h *Heart) PeerConnected(p mesh.PeerID, up bool) {
	p, ok := h.cfg.Known(p)
	switch {
	case !ok:
	case up:
		h.sched.reached(p)
	default:
		h.sched.lost(p)
	}
}

// Countersigned lists the peers' proofs of this node's heads.
func (h *Heart) Countersigned() []Countersigned { return h.witness.counters() }

func (h *Heart) peer(p mesh.PeerID) *peer {
	have := h.peers[p]
	if have == nil {
		have = &peer{limiter: rate.NewLimiter(ratePerPeer, burstPerPeer)}
		h.peers[p] = have
	}
	return have
}

// beat sends one heartbeat and judges the answer.
func (h *Heart) beat(ctx context.Context, p mesh.PeerID) bool {
	if _, trusted := h.cfg.Known(p); !trusted {
		return false // its grant has ended
	}
	ctx, cancel := context.WithTimeout(ctx, exchangeTime)
	defer cancel()
	if !h.cfg.Connected(p) {
		select {
		case h.dials <- struct{}{}:
			defer func() { <-h.dials }()
		case <-ctx.Done():
			return false
		}
	}
	self := h.cfg.Self(p)
	sent := h.cfg.Now()
	data, err := wire.SealHeartbeat(h.cfg.Key.Private, wire.Heartbeat{
		Version: wire.Version, From: h.cfg.Key.ID, To: p, Time: sent.UnixMilli(), Nonce: wire.NewNonce(),
		Incarnation: self.Incarnation, Program: clip(h.cfg.Program), Trust: self.Trust, Audit: self.Audit, Free: self.Free,
	})
	var raw []byte
	var rtt time.Duration
	var pulse *wire.Pulse
	if err == nil {
		raw, rtt, err = h.cfg.Exchange(ctx, p, data)
	}
	if err == nil {
		pulse, err = wire.OpenPulse(raw, p, h.cfg.Key.ID, data)
	}
	if err != nil {
		if errors.Is(ctx.Err(), context.Canceled) {
			return false // this node stops
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if _, trusted := h.cfg.Known(p); trusted {
			known := h.peer(p)
			known.failed, known.reason = h.cfg.Now(), mesh.AsError(err).Msg
		}
		return false
	}
	h.answered(ctx, p, self, data, raw, pulse, sent, rtt)
	return true
}

// answered takes in a peer's valid answer.
func (h *Heart) answered(ctx context.Context, p mesh.PeerID, self Self, data, raw []byte, pulse *wire.Pulse, sent time.Time, rtt time.Duration) {
	if _, trusted := h.cfg.Known(p); !trusted {
		return // removed meanwhile
	}
	h.mu.Lock()
	known := h.peer(p)
	known.seen, known.reason = h.cfg.Now(), ""
	if known.rtt == 0 || rtt < known.rtt {
		known.rtt = rtt
	} else {
		known.rtt = (3*known.rtt + rtt) / 4 // one slow answer says little about the way
	}
	known.offset = time.UnixMilli(pulse.Time).Sub(sent.Add(rtt / 2))
	changed := h.last[p].Trust != self.Trust || h.last[p].Audit != self.Audit
	if pulse.Error == nil {
		h.last[p] = Self{Trust: self.Trust, Audit: self.Audit}
	} else {
		known.reason = pulse.Error.Err().Msg
	}
	h.mu.Unlock()
	if pulse.Error == nil {
		h.witness.countersigned(p, data, raw, changed)
	}
	if pulse.Doubled {
		h.cfg.Alarm(ctx, AlarmSelfTwice, p)
	}
	if len(pulse.Earlier) > 0 {
		h.examine(ctx, p, pulse.Earlier)
	}
}

// examine looks at a heartbeat of this node's that a peer gives back: what it says
// of the logs must still be in them. It proves something only if this node signed
// it, for the state file that it has now.
func (h *Heart) examine(ctx context.Context, by mesh.PeerID, earlier []byte) {
	was, err := wire.OpenOwnHeartbeat(earlier, h.cfg.Mine)
	if err != nil {
		h.cfg.Log.Warn("a peer shows a heartbeat that is not this node's", "peer", by, "err", err)
		return
	}
	if was.Incarnation != h.cfg.Self(by).Incarnation {
		return
	}
	ok, err := h.cfg.Contains(was.Trust, was.Audit, time.UnixMilli(was.Time))
	if err != nil {
		h.cfg.Log.Error("cannot look into the logs", "err", err)
		return
	}
	if !ok {
		h.cfg.RolledBack(ctx, by, was)
	}
}

// Receive judges a heartbeat that came over a connection of conn's and returns the
// answer; nil = none is due, and the stream is to be reset.
func (h *Heart) Receive(ctx context.Context, conn mesh.PeerID, data []byte) []byte {
	p, ok := h.cfg.Known(conn)
	if !ok {
		return nil
	}
	h.mu.Lock()
	allowed := h.peer(p).limiter.AllowN(h.cfg.Now(), 1)
	h.mu.Unlock()
	if !allowed {
		return nil
	}
	now := h.cfg.Now()
	pulse := wire.NewPulse(data, h.cfg.Key.ID, conn, now)
	beat, err := wire.OpenHeartbeat(data, conn, h.cfg.Key.ID)
	if err == nil {
		err = h.admit(p, beat, now)
	}
	if err != nil {
		pulse.Error = wire.NewError(err)
		h.cfg.Log.Info("refused a heartbeat", "peer", conn, "reason", err)
	} else {
		h.take(ctx, p, data, beat, &pulse)
	}
	out, err := wire.SealPulse(h.cfg.Key.Private, pulse)
	if err != nil {
		h.cfg.Log.Error("cannot answer a heartbeat", "err", err)
		return nil
	}
	return out
}

// admit says whether a heartbeat counts, and takes in what it says of its sender.
func (h *Heart) admit(p mesh.PeerID, beat *wire.Heartbeat, now time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	known := h.peer(p)
	if err := known.memory.admit(beat.Nonce, beat.Time, now); err != nil {
		if mesh.KindOf(err) == mesh.Stale && known.rtt == 0 {
			known.offset = time.UnixMilli(beat.Time).Sub(now) // the answers to ours say it better
		}
		return err
	}
	known.seen, known.reason = now, ""
	if known.rtt == 0 {
		known.offset = time.UnixMilli(beat.Time).Sub(now)
	}
	known.program, known.free = beat.Program, beat.Free
	return nil
}

// take compares what a heartbeat says of the sender's logs with what was seen.
func (h *Heart) take(ctx context.Context, p mesh.PeerID, data []byte, beat *wire.Heartbeat, pulse *wire.Pulse) {
	f, earlier := h.witness.saw(p, data, beat)
	pulse.Earlier = earlier
	switch f {
	case contradicts:
		h.cfg.Alarm(ctx, AlarmRolledBack, p)
	case anew:
		h.cfg.Alarm(ctx, AlarmNewState, p)
	case doubled:
		pulse.Doubled = true
		h.cfg.Alarm(ctx, AlarmDoubled, p)
	}
}

func clip(s string) string { return s[:min(len(s), 64)] }
