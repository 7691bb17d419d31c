package testkit

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// Stall measures how long the machine keeps waiting who wants next to nothing of it: a
// loop that sleeps and puts a few bytes on disk. A limit on what the product takes holds
// for the time without that, or it would be a limit on what else the machine does.
type Stall struct {
	mu    sync.Mutex
	lost  time.Duration
	since time.Time // of the turn of the loop that is under way
}

const stallTurn = 5 * time.Millisecond

// WatchStall begins to measure, until the test ends.
func WatchStall(t testing.TB) *Stall {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "stall"))
	if err != nil {
		t.Fatal(err)
	}
	s := &Stall{since: time.Now()}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		defer f.Close()
		for {
			select {
			case <-stop:
				return
			case <-time.After(stallTurn):
			}
			_, err := f.WriteAt([]byte{1}, 0)
			if err := errors.Join(err, f.Sync()); err != nil {
				t.Error(err)
				return
			}
			s.mu.Lock()
			s.lost, s.since = s.total(time.Now()), time.Now()
			s.mu.Unlock()
		}
	}()
	t.Cleanup(func() { close(stop); <-done })
	return s
}

// total is what was lost until now. The caller holds mu.
func (s *Stall) total(now time.Time) time.Duration {
	return s.lost + max(0, now.Sub(s.since)-stallTurn)
}

// Lost is how much of the time since the beginning nothing could be done.
func (s *Stall) Lost() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total(time.Now())
}
