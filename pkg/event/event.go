// Package event tells the local person what happens on a node, as it happens. It
// holds back nobody: whoever reads too slowly loses events and is told how many.
// What must not be lost is in the audit log; nothing here is on disk.
package event

import (
	"sync"
	"time"

	"peercompute/pkg/mesh"
)

// Type says what an event is about.
type Type string

// The types.
const (
	Trust      Type = "trust"      // the trust list, invites, lockdown
	Admission  Type = "admission"  // requests of peers, and what came of them
	Workload   Type = "workload"   // states of workloads that run here
	Tunnel     Type = "tunnel"     // gateways and public names
	Connection Type = "connection" // peers that connect and go
)

// Types lists them all.
func Types() []Type { return []Type{Trust, Admission, Workload, Tunnel, Connection} }

// Event is one thing that happened. Its strings are for people and programs alike
// and hold no secrets.
type Event struct {
	Seq     uint64      // from 1, in the life of this process; set by Publish
	Time    time.Time   // set by Publish
	Type    Type        //
	Name    string      // what happened: "grant.put", "refused", "running", "up"
	Peer    mesh.PeerID // whom it is about, if anybody
	Subject string      // a workload's ID, a verb, a name
	Rule    string      // that decided, if one did
	Detail  string      // one line
	Missed  uint64      // events that this reader lost just before this one
}

// Bounds of what waits.
const (
	keep   = 1024 // events kept for those who ask later
	buffer = 256  // events that one reader may be behind
)

// Bus carries events to those who listen. A nil Bus carries nothing.
type Bus struct {
	now func() time.Time

	mu   sync.Mutex
	seq  uint64
	ring []Event // the last ones; the oldest is at seq%keep once it is full
	subs map[*Subscription]struct{}
}

// New makes a bus.
func New(now func() time.Time) *Bus {
	return &Bus{now: now, subs: map[*Subscription]struct{}{}}
}

// Publish tells everybody who listens now. It never waits.
func (b *Bus) Publish(e Event) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seq++
	e.Seq, e.Time, e.Missed = b.seq, b.now().UTC(), 0
	if len(b.ring) < keep {
		b.ring = append(b.ring, e)
	} else {
		b.ring[(e.Seq-1)%keep] = e
	}
	for s := range b.subs {
		s.give(e)
	}
}

// Subscription is one reader's view of the bus.
type Subscription struct {
	C      <-chan Event // never closed; Close ends the flow
	c      chan Event
	want   map[Type]bool // nil = all
	bus    *Bus
	missed uint64 // guarded by bus.mu
}

func (s *Subscription) wants(e Event) bool { return s.want == nil || s.want[e.Type] }

// give hands over an event or counts it as missed. The bus is locked.
func (s *Subscription) give(e Event) {
	if !s.wants(e) {
		return
	}
	e.Missed = s.missed
	select {
	case s.c <- e:
		s.missed = 0
	default:
		s.missed++
	}
}

// Subscribe returns up to last kept events of the given types (none = all), the
// oldest first, and a subscription to those that follow them without a gap. The
// caller closes it.
func (b *Bus) Subscribe(last int, types ...Type) ([]Event, *Subscription) {
	s := &Subscription{c: make(chan Event, buffer), bus: b}
	s.C = s.c
	for _, t := range types {
		if s.want == nil {
			s.want = map[Type]bool{}
		}
		s.want[t] = true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.subs[s] = struct{}{}
	var out []Event
	for n := uint64(len(b.ring)); n > 0; n-- { // n = 1 is the newest
		e := b.ring[(b.seq-n)%keep]
		if s.wants(e) {
			out = append(out, e)
		}
	}
	if len(out) > last {
		out = out[len(out)-last:]
	}
	return out, s
}

// Close ends the subscription.
func (s *Subscription) Close() {
	s.bus.mu.Lock()
	defer s.bus.mu.Unlock()
	delete(s.bus.subs, s)
}
