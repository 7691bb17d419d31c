package lend

import (
	"fmt"
	"time"
)

// When a machine counts as idle. It takes a while to become so, and less to stop
// being so: the one who comes back wants the machine at once.
const (
	QuietFor   = 5 * time.Minute  // that little is used before the machine is idle
	busyFor    = 30 * time.Second // that much is used before it is not
	typed      = time.Minute      // a key pressed this recently is somebody at work
	SampleEach = 10 * time.Second
)

// Sample is what was seen of the machine.
type Sample struct {
	Others float64       // cores that others than our lent work used on average since the last sample
	Since  time.Duration // how long that was
	Input  time.Duration // since somebody last typed at a terminal; negative = not known
}

// Detector says whether the machine is idle. It is not safe for use by several
// goroutines at once.
type Detector struct {
	low, high float64 // cores
	idle      bool
	quiet     time.Duration // how long it has been quiet, while not idle
	busy      time.Duration // how long it has been busy, while idle
	last      Sample
	seen      bool
}

// NewDetector makes a detector for a machine of this many cores. Until it has seen
// enough the machine is not idle.
//
// Quiet is under a tenth of the cores (at least a quarter of one) used by others;
// busy is over twice that. In between nothing changes.
func NewDetector(cores int) *Detector {
	low := max(0.25, 0.1*float64(cores))
	return &Detector{low: low, high: 2 * low}
}

// Add takes a sample into account.
func (d *Detector) Add(s Sample) {
	d.last, d.seen = s, true
	// After a suspend, or where the clock jumped, nothing is known of the time between.
	dt := min(max(s.Since, 0), 3*SampleEach)
	typing := s.Input >= 0 && s.Input < typed
	quiet := s.Others < d.low && (s.Input < 0 || s.Input >= QuietFor)
	switch {
	case !d.idle && quiet:
		if d.quiet += dt; d.quiet >= QuietFor {
			d.idle, d.busy = true, 0
		}
	case !d.idle:
		d.quiet = 0
	case typing:
		d.idle, d.quiet = false, 0
	case s.Others > d.high:
		if d.busy += dt; d.busy >= busyFor {
			d.idle, d.quiet = false, 0
		}
	default:
		d.busy = 0
	}
}

// Idle reports whether the machine is idle.
func (d *Detector) Idle() bool { return d.idle }

// Describe says what was seen last, for people.
func (d *Detector) Describe() string {
	if !d.seen {
		return "not measured yet"
	}
	s := fmt.Sprintf("others use %.2f cores", d.last.Others)
	if d.last.Input >= 0 {
		s += fmt.Sprintf(", last key %s ago", d.last.Input.Round(time.Second))
	}
	switch {
	case d.idle:
		return "idle: " + s
	case d.quiet > 0:
		return fmt.Sprintf("quiet for %s of %s: %s", d.quiet.Round(time.Second), QuietFor, s)
	}
	return fmt.Sprintf("in use: %s (quiet is under %.2f cores and no key for %s)", s, d.low, QuietFor)
}

// Machine is one look at the whole machine.
type Machine struct {
	Busy  time.Duration // processor time of everything since it was started
	Input time.Duration // since somebody last typed at a terminal; negative = not known
}

// Watch turns looks at the machine into samples.
type Watch struct {
	at   time.Time
	busy time.Duration
	ours map[string]time.Duration
}

// Look takes a look at the machine at a time, and the processor time that each part
// of our lent work has used so far, by any stable name. The first look gives no sample.
func (w *Watch) Look(at time.Time, m Machine, ours map[string]time.Duration) (s Sample, ok bool) {
	since, spent := at.Sub(w.at), time.Duration(0)
	for name, now := range ours {
		if used := now - w.ours[name]; used > 0 {
			spent += used
		}
	}
	others := m.Busy - w.busy - spent
	ok = w.ours != nil && since > 0
	w.at, w.busy, w.ours = at, m.Busy, ours
	if !ok {
		return Sample{}, false
	}
	return Sample{Others: max(0, others.Seconds()/since.Seconds()), Since: since, Input: m.Input}, true
}
