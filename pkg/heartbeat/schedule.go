package heartbeat

import (
	"container/heap"
	"context"
	"math"
	"sync"
	"time"

	"peercompute/pkg/mesh"
)

// How heartbeats are spread and slowed down.
const (
	jitter      = 0.1 // of the interval, either way
	maxFailures = 4   // after which the pause grows no more: 16 intervals
	maxAtOnce   = 64  // exchanges under way
	soonest     = time.Second
)

// schedule calls beat for each peer about once an interval. The first call comes
// at a moment drawn over a whole interval, so that nodes which start together do
// not send together. A peer that does not answer is tried ever less often.
//
// The first moment is uniform over an interval that is itself drawn, longer ones
// more often in proportion. That is what is left of an interval at a moment chosen
// at random, so the rate is the same from the first second on. Uniform over the
// mean interval would not do: the first second heartbeats of some then meet the
// late first ones of others, half as many again at 15 s.
type schedule struct {
	interval time.Duration
	rnd      func() float64                                // in [0, 1)
	beat     func(ctx context.Context, p mesh.PeerID) bool // whether p answered

	wake chan struct{}

	mu    sync.Mutex
	slots map[mesh.PeerID]*slot
	queue queue
}

// slot is one peer's place in the queue.
type slot struct {
	peer     mesh.PeerID
	due      time.Time
	failures int
	busy     bool // an exchange is under way
	index    int  // in the queue
}

func newSchedule(interval time.Duration, rnd func() float64, beat func(context.Context, mesh.PeerID) bool) *schedule {
	return &schedule{interval: interval, rnd: rnd, beat: beat, wake: make(chan struct{}, 1), slots: map[mesh.PeerID]*slot{}}
}

// set says which peers there are. Those that are new get their first moment within
// spread.
func (s *schedule) set(peers []mesh.PeerID, spread time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	want := make(map[mesh.PeerID]bool, len(peers))
	now := time.Now()
	for _, p := range peers {
		want[p] = true
		if s.slots[p] == nil {
			sl := &slot{peer: p, due: now.Add(s.first(spread))}
			s.slots[p] = sl
			heap.Push(&s.queue, sl)
		}
	}
	for p, sl := range s.slots {
		if !want[p] {
			heap.Remove(&s.queue, sl.index)
			delete(s.slots, p)
		}
	}
	s.poke()
}

// reached makes a peer that was given up for a while be tried within an interval.
func (s *schedule) reached(p mesh.PeerID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sl := s.slots[p]
	if sl == nil || sl.failures == 0 {
		return
	}
	sl.failures = 0
	if at := time.Now().Add(time.Duration(s.rnd() * float64(s.interval))); at.Before(sl.due) {
		sl.due = at
		heap.Fix(&s.queue, sl.index)
		s.poke()
	}
}

// lost makes a peer whose connection went be tried soon, once.
func (s *schedule) lost(p mesh.PeerID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sl := s.slots[p]
	if sl == nil || sl.failures > 0 {
		return
	}
	if at := time.Now().Add(time.Duration(s.rnd() * float64(s.interval) / 2)); at.Before(sl.due) {
		sl.due = at
		heap.Fix(&s.queue, sl.index)
		s.poke()
	}
}

// rekey keeps a peer's place under another ID.
func (s *schedule) rekey(from, to mesh.PeerID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sl := s.slots[from]
	if sl == nil || s.slots[to] != nil {
		return
	}
	heap.Remove(&s.queue, sl.index)
	delete(s.slots, from)
	next := &slot{peer: to, due: sl.due} // an exchange that is under way ends with the old one
	s.slots[to] = next
	heap.Push(&s.queue, next)
	s.poke()
}

func (s *schedule) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run keeps the schedule until ctx ends and waits for what it started.
func (s *schedule) run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, maxAtOnce)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		for _, sl := range s.take() {
			wg.Go(func() {
				ok := false
				select {
				case slots <- struct{}{}:
					ok = s.beat(ctx, sl.peer)
					<-slots
				case <-ctx.Done():
				}
				s.done(sl, ok)
			})
		}
		timer.Reset(s.pause())
		select {
		case <-timer.C:
		case <-s.wake:
		case <-ctx.Done():
			return nil
		}
	}
}

// take returns the peers that are due, and sets when they are next.
func (s *schedule) take() []*slot {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*slot
	for now := time.Now(); len(s.queue) > 0 && !s.queue[0].due.After(now); {
		sl := s.queue[0]
		if !sl.busy {
			sl.busy = true
			out = append(out, sl)
		}
		sl.due = now.Add(s.next(sl.failures))
		heap.Fix(&s.queue, 0)
	}
	return out
}

// first is the time to a peer's first heartbeat, within about spread.
func (s *schedule) first(spread time.Duration) time.Duration {
	const least, most = (1 - jitter) * (1 - jitter), (1 + jitter) * (1 + jitter)
	length := math.Sqrt(least + (most-least)*s.rnd()) // density in proportion to the length
	return time.Duration(s.rnd() * length * float64(spread))
}

// next is the time to the next heartbeat.
func (s *schedule) next(failures int) time.Duration {
	d := s.interval << min(failures, maxFailures)
	return time.Duration(float64(d) * (1 - jitter + 2*jitter*s.rnd()))
}

func (s *schedule) done(sl *slot, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sl.busy = false
	if s.slots[sl.peer] != sl {
		return // removed meanwhile
	}
	if ok {
		sl.failures = 0
		return
	}
	sl.failures++
	if sl.failures > 1 { // one may be lost
		sl.due = time.Now().Add(s.next(sl.failures - 1))
		heap.Fix(&s.queue, sl.index)
	}
}

func (s *schedule) pause() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		return s.interval
	}
	return max(time.Until(s.queue[0].due), 0)
}

// queue is a heap of slots, the next one due first.
type queue []*slot

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }
func (q queue) Swap(i, j int)      { q[i], q[j] = q[j], q[i]; q[i].index, q[j].index = i, j }
func (q *queue) Push(x any)        { sl := x.(*slot); sl.index = len(*q); *q = append(*q, sl) }
func (q *queue) Pop() any {
	old := *q
	sl := old[len(old)-1]
	*q = old[:len(old)-1]
	return sl
}
