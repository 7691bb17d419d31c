package mux

import "time"

// flight bounds how many bytes of long frames are on the way: written here, and
// not yet taken in by the other end's session. On a near connection the network
// is no bottleneck; the other end's processor is, and what is ahead of it waits
// in its kernel's receive buffer, megabytes of it, before the next short answer.
// A ping's answer says how far the other end has come. Session.mu guards it.
type flight struct {
	sent    int64 // bytes written, ever
	arrived int64 // bytes known to have been taken in
	window  int64 // bytes that may be on the way
	least   time.Duration
	limited bool      // the window held something back since the last ping
	fast    bool      // a long frame takes a moment to send
	began   time.Time // to send, after all had arrived
	judged  time.Time
	far     bool // too far to judge: TCP does it better
}

const (
	minFlight    = 256 << 10
	maxFlight    = 8 << 20
	askEvery     = 64 << 10 // bytes
	fastRate     = 64 << 20 // bytes a second; with less than a quarter of it, it is not
	queueTarget  = 2 * time.Millisecond
	farRoundTrip = 5 * time.Millisecond
)

// The data that a long frame carries, in bytes.
const (
	frameBytes     = recordBytes - headerBytes
	fastFrameBytes = 64 << 10
)

func (f *flight) full() bool {
	if f.far || f.sent-f.arrived < f.window {
		return false
	}
	f.limited = true
	return true
}

func (f *flight) send(n int, now time.Time) {
	if f.sent == f.arrived {
		f.began = now
	}
	f.sent += int64(n)
}

// mayAsk reports whether enough is on the way to ask how far it came.
func (f *flight) mayAsk() bool { return f.sent-f.arrived >= askEvery }

// size is how much of n bytes the next frame carries: little where a frame holds
// up the line for long, and more where its cost is the processor's.
func (f *flight) size(n int, window int64) int {
	most := int64(frameBytes)
	if f.fast {
		most = fastFrameBytes
	}
	most = min(most, window)
	if left := int64(n) - most; left > 0 && left <= shortBytes && int64(n) <= window {
		return n // a frame for the rest would cost more than it is worth
	}
	return int(min(int64(n), most))
}

// judge learns from a ping that was sent when mark bytes had been: the window
// moves to where a ping takes queueTarget longer than on an idle connection.
func (f *flight) judge(mark int64, rtt time.Duration, now time.Time) {
	if mark > f.arrived {
		since := f.judged
		if since.Before(f.began) {
			since = f.began
		}
		rate := float64(mark-f.arrived) / max(now.Sub(since).Seconds(), 1e-9)
		f.fast = rate > fastRate || f.fast && rate > fastRate/4
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
