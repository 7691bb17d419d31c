package lend

import (
	"strings"
	"testing"
	"time"
)

// feed adds samples, one each ten seconds, for a while.
func feed(d *Detector, span time.Duration, s Sample) {
	s.Since = SampleEach
	for t := time.Duration(0); t < span; t += SampleEach {
		d.Add(s)
	}
}

func TestIdleTakesAWhile(t *testing.T) {
	quiet, between, busy := Sample{Others: 0.1, Input: -1}, Sample{Others: 0.5, Input: -1}, Sample{Others: 3, Input: -1}
	d := NewDetector(4) // quiet under 0.4, busy over 0.8
	if d.Idle() {
		t.Fatal("idle before anything was seen")
	}
	feed(d, QuietFor-SampleEach, quiet)
	if d.Idle() || !strings.Contains(d.Describe(), "quiet for 4m50s") {
		t.Fatalf("too early: %s", d.Describe())
	}
	feed(d, SampleEach, between) // begins anew
	feed(d, QuietFor-SampleEach, quiet)
	if d.Idle() {
		t.Fatal("a busier moment did not count")
	}
	feed(d, SampleEach, quiet)
	if !d.Idle() {
		t.Fatalf("not idle: %s", d.Describe())
	}
	feed(d, time.Hour, between) // neither quiet nor busy: it stays as it was
	if !d.Idle() {
		t.Fatal("it flaps")
	}
	feed(d, busyFor-SampleEach, busy)
	feed(d, SampleEach, quiet)
	feed(d, busyFor-SampleEach, busy)
	if !d.Idle() {
		t.Fatal("short bursts count as use")
	}
	feed(d, SampleEach, busy)
	if d.Idle() {
		t.Fatal("still idle while others compute")
	}
}

// Somebody who types has the machine back at once, and for as long as it takes.
func TestTypingEndsIdleness(t *testing.T) {
	d := NewDetector(1)
	feed(d, QuietFor, Sample{Input: time.Hour})
	if !d.Idle() {
		t.Fatal(d.Describe())
	}
	feed(d, SampleEach, Sample{Input: time.Second})
	if d.Idle() {
		t.Fatal("idle while somebody types")
	}
	for ago := time.Duration(0); ago < QuietFor; ago += SampleEach {
		feed(d, SampleEach, Sample{Input: ago})
	}
	if d.Idle() {
		t.Fatal("a key counts for less than five minutes")
	}
}

// A suspended machine was not watched: the hours do not count as quiet.
func TestSuspendIsNotQuiet(t *testing.T) {
	d := NewDetector(1)
	d.Add(Sample{Since: 8 * time.Hour, Input: -1})
	if d.Idle() {
		t.Fatal("idle after one sample")
	}
	d.Add(Sample{Since: -time.Hour, Input: -1}) // the clock was set back
	feed(d, QuietFor, Sample{Input: -1})
	if !d.Idle() {
		t.Fatal(d.Describe())
	}
}

// Our own lent work is no use by others, also when parts of it come and go.
func TestWatchSubtractsOurs(t *testing.T) {
	var w Watch
	t0 := at(25, 0, 0)
	if _, ok := w.Look(t0, Machine{Busy: 100 * time.Second, Input: -1}, map[string]time.Duration{"a": 90 * time.Second}); ok {
		t.Fatal("a sample of one look")
	}
	s, ok := w.Look(t0.Add(10*time.Second), Machine{Busy: 115 * time.Second, Input: time.Minute}, map[string]time.Duration{"a": 98 * time.Second, "b": 2 * time.Second})
	if !ok || s.Others != 0.5 || s.Input != time.Minute || s.Since != 10*time.Second {
		t.Fatalf("got %+v, want half a core used by others", s)
	}
	s, ok = w.Look(t0.Add(20*time.Second), Machine{Busy: 116 * time.Second}, map[string]time.Duration{"b": 3500 * time.Millisecond})
	if !ok || s.Others != 0 {
		t.Fatalf("got %+v: ours is more than all, which is nobody's use", s)
	}
	if _, ok := w.Look(t0, Machine{}, nil); ok {
		t.Fatal("a sample over negative time")
	}
}
