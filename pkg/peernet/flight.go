package peernet

import (
	"sync"
	"time"
)

// flight bounds how many bytes of long frames are on the way: written here, and
// not yet taken in by the other end's session. On a near connection the network
// is no bottleneck; the other end's processor is, and what is ahead of it waits
// in its kernel's receive buffer, megabytes of it, before the next short answer.
// A ping's answer says how far the other end has come. turns.mu guards it.
type flight struct {
	probe   sync.Cond // enough is on the way to ask how far it came
	sent    int64     // bytes written, ever
	arrived int64     // bytes known to have been taken in
	window  int64     // bytes that may be on the way
	least   time.Duration
	limited bool // the window held something back since the last ping
	fast    bool // a long frame takes a moment to send
	judged  time.Time
	far     bool // too far to judge: TCP does it better
}

const (
	minFlight    = 256 << 10
	maxFlight    = 8 << 20
	probeEvery   = 64 << 10 // bytes
	fastRate     = 64 << 20 // bytes a second
	queueTarget  = 2 * time.Millisecond
	farRoundTrip = 5 * time.Millisecond
)

func (f *flight) full() bool {
	if f.far || f.sent-f.arrived < f.window {
		return false
	}
	f.limited = true
	return true
}

func (f *flight) send(n int) {
	f.sent += int64(n)
	if f.sent-f.arrived >= probeEvery {
		f.probe.Signal()
	}
}

// frame is the data that the next frame may carry: little where a frame holds up
// the line for long, and more where its cost is the processor's.
func (f *flight) frame() int {
	if f.fast {
		return fastFrameBytes
	}
	return frameBytes
}

// judge learns from a ping that was sent when mark bytes had been: the window
// moves to where a ping takes queueTarget longer than on an idle connection.
func (f *flight) judge(mark int64, rtt time.Duration, now time.Time) {
	if since := now.Sub(f.judged); !f.judged.IsZero() && mark > f.arrived {
		f.fast = float64(mark-f.arrived) > since.Seconds()*fastRate
	}
	f.judged = now
	f.arrived = max(f.arrived, mark)
	if f.least == 0 || rtt < f.least {
		f.least = max(rtt, time.Microsecond)
	}
	f.far = f.least > farRoundTrip
	if !f.limited {
		return
	}
	f.limited = false
	factor := float64(2*f.least+queueTarget) / float64(max(rtt, time.Microsecond))
	factor = min(max(factor, 0.75), 1.5)
	f.window = min(max(int64(float64(f.window)*factor), minFlight), maxFlight)
}

// measure pings while there is much on the way, until the sending ends.
func (t *turns) measure(ping func() (time.Duration, error), idle func() time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed { // already, and Close may be waiting
		return
	}
	t.pings.Go(func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		f := &t.flight
		for {
			for f.sent-f.arrived < probeEvery && !t.closed && t.err == nil {
				f.probe.Wait()
			}
			if t.closed || t.err != nil {
				return
			}
			if f.least == 0 {
				f.least = idle()
			}
			mark := f.sent
			t.mu.Unlock()
			rtt, err := ping()
			t.mu.Lock()
			if err != nil {
				// No answer is no reason to stop: the session's keep-alive judges that.
				f.arrived = mark
			} else {
				f.judge(mark, rtt, time.Now())
			}
			t.work.Signal()
		}
	})
}
