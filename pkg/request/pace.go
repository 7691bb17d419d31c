package request

import (
	"context"
	"sync"
	"time"

	"peercompute/pkg/mesh"
)

// To refuse a request costs what it costs to admit one: a signature to verify, another
// to make. So whoever has been refused a few times in a row for having asked too often,
// or for what nobody could have signed, is heard more slowly until that is made up for.
const (
	refusedAtOnce = 10
	refusedEach   = 500 * time.Millisecond
	maxTurn       = 10 * time.Second // who would have to wait longer is not heard
)

// pace knows which peers are heard more slowly. The zero pace hears all at once.
type pace struct {
	mu  sync.Mutex
	due map[mesh.PeerID]time.Time // when its refusals are made up for
}

// refused notes that p was refused.
func (c *pace) refused(p mesh.PeerID, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.due == nil {
		c.due = map[mesh.PeerID]time.Time{}
	}
	for other, due := range c.due { // no more than ever made a request in this time
		if !due.After(now) {
			delete(c.due, other)
		}
	}
	due, owes := c.due[p]
	if !owes {
		due = now
	}
	if due.Sub(now) <= refusedAtOnce*refusedEach { // otherwise its turn was counted
		c.due[p] = due.Add(refusedEach)
	}
}

// turn is how long the next request of p waits; false = it is not heard.
func (c *pace) turn(p mesh.PeerID, now time.Time) (wait time.Duration, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	due := c.due[p]
	if wait = due.Sub(now.Add(refusedAtOnce * refusedEach)); wait <= 0 {
		return 0, true
	}
	if wait > maxTurn {
		return 0, false
	}
	c.due[p] = due.Add(refusedEach)
	return wait, true
}

// await waits for p's turn, and reports whether it came.
func (c *pace) await(ctx context.Context, p mesh.PeerID) bool {
	wait, ok := c.turn(p, time.Now())
	if !ok || wait == 0 {
		return ok
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// tooOften reports whether an error is among those that make a peer be heard more slowly.
// A clock that is wrong and a state that was lost are made up for by every client.
func tooOften(err error) bool {
	switch mesh.KindOf(err) {
	case mesh.Quota, mesh.Forged:
		return true
	}
	return false
}
