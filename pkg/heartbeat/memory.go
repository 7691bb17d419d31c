package heartbeat

import (
	"time"

	"peercompute/pkg/mesh"
	"peercompute/pkg/wire"
)

// maxNonces bounds what is remembered of one peer. Within the window of two
// minutes that is four heartbeats a second; nobody honest sends as many.
const maxNonces = 480

// memory holds the nonces of one peer's heartbeats that could still pass by their
// time, so that none counts twice. The caller serialises its use.
type memory struct {
	seen  map[wire.Nonce]int64 // → when it was sent, Unix ms by the peer's clock
	floor int64                // up to here everything that counted is forgotten
}

// admit says whether a heartbeat counts, and remembers it if it does.
func (m *memory) admit(n wire.Nonce, sent int64, now time.Time) error {
	at, drift := now.UnixMilli(), wire.HeartbeatDrift.Milliseconds()
	if sent < at-drift || sent > at+drift {
		return mesh.Errorf(mesh.Stale, "the heartbeat's time is more than %s away from this machine's clock", wire.HeartbeatDrift).
			WithRule("heartbeat.time").WithHint("one of the two clocks is wrong")
	}
	for old, when := range m.seen {
		if when < at-drift {
			delete(m.seen, old)
			// Should this machine's clock go back, what is forgotten here could pass
			// by its time again.
			m.floor = max(m.floor, when)
		}
	}
	if _, again := m.seen[n]; again || sent <= m.floor {
		return mesh.Errorf(mesh.Replayed, "the heartbeat was received before").WithRule("heartbeat.nonce")
	}
	if len(m.seen) >= maxNonces {
		return mesh.Errorf(mesh.Overloaded, "more than %d heartbeats in two minutes", maxNonces).WithRule("heartbeat.rate")
	}
	if m.seen == nil {
		m.seen = map[wire.Nonce]int64{}
	}
	m.seen[n] = sent
	return nil
}
