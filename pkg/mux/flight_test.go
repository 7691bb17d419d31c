package mux

import (
	"testing"
	"time"
)

func TestFlightJudges(t *testing.T) {
	f := flight{window: minFlight, least: 100 * time.Microsecond}
	if f.full() {
		t.Error("full with nothing on the way")
	}
	f.sent = minFlight
	if !f.full() {
		t.Error("not full with the window on the way")
	}
	f.judge(f.sent, time.Millisecond, time.Unix(1, 0)) // quick: it may grow
	if f.window <= minFlight || f.arrived != f.sent {
		t.Errorf("window %d, arrived %d of %d", f.window, f.arrived, f.sent)
	}
	for range 100 {
		f.limited = true
		f.judge(f.sent, time.Second, time.Unix(1, 0)) // slow: it shrinks to the floor
	}
	if f.window != minFlight {
		t.Errorf("window %d after slow answers, want %d", f.window, minFlight)
	}
	for range 100 {
		f.limited = true
		f.judge(f.sent, 10*time.Microsecond, time.Unix(1, 0))
	}
	if f.window != maxFlight {
		t.Errorf("window %d after quick answers, want %d", f.window, maxFlight)
	}
	far := flight{window: minFlight, sent: 1 << 30}
	far.judge(0, 50*time.Millisecond, time.Unix(1, 0))
	if far.full() {
		t.Error("a far connection is held back")
	}
	for rate, want := range map[int64]int{1 << 20: frameBytes, 1 << 30: fastFrameBytes} { // bytes a second
		rated := flight{window: minFlight}
		rated.judge(0, time.Millisecond, time.Unix(1, 0))
		rated.judge(rate/100, time.Millisecond, time.Unix(1, 0).Add(10*time.Millisecond))
		if got := rated.size(1<<20, 1<<20); got != want {
			t.Errorf("at %d MiB/s frames carry %d bytes, want %d", rate>>20, got, want)
		}
	}
}
