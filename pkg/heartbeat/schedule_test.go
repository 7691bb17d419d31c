package heartbeat

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peercompute/pkg/mesh"
)

// A thousand nodes that start in the same instant do not send in the same second,
// neither at first nor later: the busiest second stays under 1.5 times the mean.
// Nodes draw independently, so chance remains: any one second is busier than that
// about once in 20,000.
func TestRestartTogether(t *testing.T) {
	const nodes, span = 1000, 90 // seconds
	worst := 0.0
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), span*time.Second)
			defer cancel()
			var counting sync.Mutex
			var second [span + 1]int
			var wg sync.WaitGroup
			for node := range uint64(nodes) {
				// Each draws from a source of its own, so that a seed means one course of events.
				s := newSchedule(DefaultInterval, rand.New(rand.NewPCG(seed, node)).Float64, func(context.Context, mesh.PeerID) bool {
					counting.Lock()
					defer counting.Unlock()
					second[int(time.Since(start)/time.Second)]++
					return true
				})
				s.set([]mesh.PeerID{"hub"}, s.interval)
				wg.Go(func() { _ = s.run(ctx) })
			}
			wg.Wait()
			total, busiest := 0, 0
			for _, n := range second[:span] {
				total += n
				busiest = max(busiest, n)
			}
			mean := float64(total) / span
			if want := float64(nodes) / DefaultInterval.Seconds(); mean < 0.97*want || mean > 1.03*want {
				t.Errorf("seed %d: %.1f heartbeats a second, want about %.1f", seed, mean, want)
			}
			ratio := float64(busiest) / mean
			worst = max(worst, ratio)
			if ratio >= 1.5 {
				t.Errorf("seed %d: the busiest second has %d heartbeats, %.2f times the mean", seed, busiest, ratio)
			}
		})
	}
	t.Logf("the busiest second of any run has %.2f times the mean", worst)
}

// The pauses are within a tenth of the interval; a peer that does not answer is
// tried ever less often, and again soon once it is reached.
func TestPausesAndBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var mu sync.Mutex
		var at []time.Time
		ok := true
		s := newSchedule(DefaultInterval, rand.New(rand.NewPCG(1, 2)).Float64, func(context.Context, mesh.PeerID) bool {
			mu.Lock()
			defer mu.Unlock()
			at = append(at, time.Now())
			return ok
		})
		s.set([]mesh.PeerID{"p"}, s.interval)
		done := make(chan struct{})
		go func() { defer close(done); _ = s.run(ctx) }()
		time.Sleep(10 * time.Minute)
		mu.Lock()
		for i := 1; i < len(at); i++ {
			if d := at[i].Sub(at[i-1]); d < 13500*time.Millisecond || d > 16500*time.Millisecond {
				t.Errorf("%s between two heartbeats", d)
			}
		}
		if len(at) < 38 || len(at) > 42 {
			t.Errorf("%d heartbeats in ten minutes, want about 40", len(at))
		}
		ok, at = false, nil
		mu.Unlock()
		time.Sleep(time.Hour)
		mu.Lock()
		if n := len(at); n > 22 {
			t.Errorf("a peer that does not answer was tried %d times in an hour", n)
		}
		ok, at = true, nil
		mu.Unlock()
		s.reached("p")
		time.Sleep(DefaultInterval)
		mu.Lock()
		if len(at) == 0 {
			t.Error("a peer that came back was not tried within an interval")
		}
		at = nil
		mu.Unlock()
		s.set(nil, 0)
		time.Sleep(time.Hour)
		mu.Lock()
		if len(at) != 0 {
			t.Error("a removed peer still gets heartbeats")
		}
		mu.Unlock()
		cancel()
		<-done
	})
}
