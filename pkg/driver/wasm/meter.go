package wasm

import (
	"context"
	"errors"
	"io"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/sys"

	"peercompute/pkg/driver"
	"peercompute/pkg/fuel"
	"peercompute/pkg/mesh"
)

// Why an instance was stopped from outside.
var (
	errFuel     = errors.New("out of fuel")
	errDeadline = errors.New("deadline passed")
	errStopped  = errors.New("stopped")
)

// exitInterrupted unwinds a guest that is stopped from outside; the meter holds
// the reason. It is no status that a program can exit with.
const exitInterrupted = 0xfffffff0

// meter decides, at each refill and each wait, whether a guest may go on. One
// instance has one meter, used by the goroutine that runs the guest.
type meter struct {
	ctx      context.Context // ends when the guest must; its cause says why
	deadline time.Time
	pace     *pace
	fuel     *fuel.Meter

	counter api.MutableGlobal // of the instance, once there is one
	stopped error             // set before the guest is unwound
	resumed time.Time
	slept   time.Duration // asked for in sleeps, of the virtual clock
	rate    uint64        // units a second; 0 = no limit
	billed  uint64        // of the units used
	burning *pace
	cpu     time.Duration // time spent in the guest and its host calls, waits excluded

	live *atomic.Uint64 // where units are told while the instance runs; nil = nowhere
	told uint64         // of those used
}

func newMeter(ctx context.Context, deadline time.Time, p *pace, budget uint64) *meter {
	return &meter{ctx: ctx, deadline: deadline, pace: p, fuel: fuel.NewMeter(budget)}
}

// Attach finds the counter of the instance.
func (m *meter) Attach(mod api.Module) {
	if m.counter == nil {
		m.counter = mod.ExportedGlobal(fuel.CounterExport).(api.MutableGlobal)
	}
}

// refill grants the next slice of the budget, about a million units. It unwinds
// the guest if there is none, or if the guest must end.
func (m *meter) refill() {
	m.Check()
	left, err := m.fuel.Refill(int64(m.counter.Get()))
	if err != nil {
		m.interrupt(errFuel)
	}
	m.counter.Set(uint64(left))
	m.tell()
	m.yield()
}

// tell makes known what was used so far: an instance may run for days.
func (m *meter) tell() {
	if m.live == nil {
		return
	}
	used := m.used()
	m.live.Add(used - m.told)
	m.told = used
}

// Charge takes fuel for what the host is about to do for the guest.
func (m *meter) Charge(units uint64) {
	left, err := m.fuel.Charge(int64(m.counter.Get()), units)
	if err != nil {
		m.interrupt(errFuel)
	}
	m.counter.Set(uint64(left))
}

// within reports whether the guest has kept to its budget. It may have used more
// since it last asked for a slice, and then nothing of that may be seen.
func (m *meter) within() bool {
	if m.counter == nil {
		return true
	}
	return m.fuel.Exceeded(int64(m.counter.Get())) == nil
}

// used is how many units the instance has burnt.
func (m *meter) used() uint64 {
	if m.counter == nil {
		return 0
	}
	return m.fuel.Used(int64(m.counter.Get()))
}

// Check unwinds the guest if it must end.
func (m *meter) Check() {
	select {
	case <-m.ctx.Done():
		m.interrupt(context.Cause(m.ctx))
	default:
	}
	// The timer behind the context needs a free processor; this does not.
	if !m.deadline.IsZero() && !time.Now().Before(m.deadline) {
		m.interrupt(errDeadline)
	}
}

func (m *meter) interrupt(why error) {
	m.stopped = why
	panic(sys.NewExitError(exitInterrupted))
}

// yield lets others run: compiled guest code cannot be preempted, and goroutines
// of this worker, the garbage collector first of all, wait for it. A workload that
// may use less than a processor waits here for its share.
func (m *meter) yield() {
	now := time.Now()
	ran := now.Sub(m.resumed)
	m.cpu += ran
	if wait := max(m.pace.spend(ran), m.ahead()); wait > 0 {
		m.sleep(wait, nil)
	} else {
		runtime.Gosched()
	}
	m.resumed = time.Now()
}

// Wait is a wait of the guest's: for d, if that is not below zero, or until it is
// woken. It ends early with the guest's time.
func (m *meter) Wait(d time.Duration, wake <-chan struct{}) {
	m.tell()
	m.pause()
	m.slept += min(max(0, d), maxSlept-m.slept)
	m.sleep(d, wake)
	m.resume()
	m.Check()
}

// maxSlept keeps the virtual clock from running over.
const maxSlept = 100 * 365 * 24 * time.Hour

// virtual is the time that a run which can be repeated reads: a nanosecond for each
// unit of fuel, and what it slept. It depends on nothing but the run itself.
func (m *meter) virtual() time.Duration {
	return time.Duration(min(m.used(), uint64(maxSlept))) + m.slept
}

func (m *meter) sleep(d time.Duration, wake <-chan struct{}) {
	if d == 0 {
		runtime.Gosched()
		return
	}
	var over <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		over = t.C
	}
	select {
	case <-over:
	case <-wake:
	case <-m.ctx.Done():
	}
}

// pause and resume bracket a wait, which is no processor time.
func (m *meter) pause()  { m.cpu += time.Since(m.resumed) }
func (m *meter) resume() { m.resumed = time.Now() }

// waitingReader and waitingWriter are a guest's streams: waiting for the other
// side costs no processor time, and may last until the guest must end.
type waitingReader struct {
	r io.Reader
	m *meter
}

func (w waitingReader) Read(p []byte) (int, error) {
	w.m.pause()
	n, err := w.r.Read(p)
	w.m.resume()
	w.m.Check()
	return n, err
}

type waitingWriter struct {
	w io.Writer
	m *meter
}

func (w waitingWriter) Write(p []byte) (int, error) {
	done := 0
	for { // in parts: a guest may write all its memory at once
		part := p[done:min(done+hostPart, len(p))]
		w.m.pause()
		n, err := w.w.Write(part)
		w.m.resume()
		w.m.Check()
		if done += n; err != nil || done == len(p) {
			return done, err
		}
	}
}

// hostPart is how many bytes a host call handles between two looks at whether the
// guest must end.
const hostPart = 32 << 10

// reason is the kind and the words for why a guest was stopped.
func (m *meter) reason() (mesh.Kind, string) {
	switch {
	case errors.Is(m.stopped, errFuel):
		return mesh.OutOfFuel, "out of fuel"
	case errors.Is(m.stopped, errDeadline), errors.Is(m.stopped, context.DeadlineExceeded):
		return mesh.Timeout, "deadline passed"
	case errors.Is(m.stopped, driver.ErrDiverged):
		return mesh.Conflict, m.stopped.Error()
	}
	return mesh.Canceled, "stopped"
}
