package heartbeat

import (
	"time"

	"peercompute/pkg/mesh"
	"peercompute/pkg/wire"
)

// State is whether a peer shows signs of life.
type State string

// The states.
const (
	Unknown State = "unknown" // nothing heard yet, and nothing failed yet
	Alive   State = "alive"
	Away    State = "away"
)

// View is what is known of a peer now.
type View struct {
	State   State
	Seen    time.Time     // the last sign of life since this node started; zero = none
	RTT     time.Duration // of an answer; 0 = not measured
	Offset  time.Duration // its clock minus this machine's
	Program string        // its version, as it says
	Free    *wire.Capacity
	Reason  string // why it could not be reached, or refused a heartbeat
}

// ClockOff reports whether the two clocks are so far apart that heartbeats are
// refused for it.
func (v View) ClockOff() bool {
	return v.Offset > wire.HeartbeatDrift || v.Offset < -wire.HeartbeatDrift
}

// View says what is known of a peer.
func (h *Heart) View(p mesh.PeerID) View {
	now := h.cfg.Now()
	up := h.cfg.Connected(p)
	h.mu.Lock()
	defer h.mu.Unlock()
	known := h.peers[p]
	if known == nil {
		return View{State: Unknown}
	}
	v := View{Seen: known.seen, RTT: known.rtt, Offset: known.offset, Program: known.program, Reason: known.reason}
	switch {
	case known.seen.IsZero() && known.failed.IsZero():
		v.State = Unknown
	case known.seen.IsZero(),
		now.Sub(known.seen) > missed*h.cfg.Interval,
		known.failed.After(known.seen) && !up:
		v.State = Away
	default:
		v.State, v.Free = Alive, known.free
	}
	return v
}
