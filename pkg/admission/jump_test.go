package admission

import (
	"context"
	"testing"
	"time"

	"peercompute/pkg/mesh"
	"peercompute/pkg/wire"
)

// A server whose clock was a year ahead by mistake, and was put right, locks nobody
// out: each request passes with one challenge, however many come, and none twice.
func TestForwardJumpLocksNobodyOut(t *testing.T) {
	b := newBench(t)
	b.max = 64
	b.restart()
	var elapsed time.Duration
	b.cfg.Elapsed, b.elapsed = func() time.Duration { return elapsed }, 0
	const year = 365 * 24 * time.Hour
	b.mustAdmit(b.request(b.alice)).Release()
	b.clock.add(year)
	b.mustAdmit(b.request(b.alice)).Release()
	b.clock.add(-year)
	ctx := context.Background()
	for range 300 { // one a minute
		elapsed += time.Minute
		b.clock.add(time.Minute)
		o := b.request(b.alice)
		if _, _, err := b.Admit(ctx, b.alice, o); mesh.AsError(err).Rule != "time.window" {
			t.Fatalf("by the clock alone: %v, want time.window", err)
		}
		o = b.request(b.alice)
		o.Challenge = b.Challenge(b.alice)
		ticket := b.mustAdmit(o)
		if err := ticket.Finish(ctx, []byte("done"), nil); err != nil {
			t.Fatal(err)
		}
		if again, prior, err := b.Admit(ctx, b.alice, o); again != nil || string(prior) != "done" {
			t.Fatalf("repeated: %v, %q, %v; want the first answer", again, prior, err)
		}
	}
	// Twice the jump later the clocks have met, and no challenge is needed any more.
	elapsed += 2 * year
	b.clock.add(2 * year)
	b.mustAdmit(b.request(b.alice)).Release()
	if d := b.Now().Sub(b.clock.now()); d != 0 {
		t.Errorf("the gate is still %s ahead", d)
	}
}

// While it catches up, the gate's time goes on slower than any clock, and never back.
func TestGateTimeNeverGoesBack(t *testing.T) {
	b := newBench(t)
	var elapsed time.Duration
	b.cfg.Elapsed, b.elapsed = func() time.Duration { return elapsed }, 0
	b.clock.add(24 * time.Hour)
	last := b.Now()
	b.clock.add(-24 * time.Hour)
	for _, step := range []time.Duration{0, time.Second, -time.Hour, wire.MaxDrift, 0} {
		elapsed += step
		now := b.Now()
		if now.Before(last) || now.Sub(last) > max(0, step)/2 {
			t.Errorf("after %s the time moved by %s", step, now.Sub(last))
		}
		last = now
	}
}
