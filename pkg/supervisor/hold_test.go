package supervisor

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

// owner is what the machine's owner wants in a test; all worlds of a test share it.
type owner struct {
	mu   sync.Mutex
	hold Hold
	ends int
}

func (o *owner) set(h Hold) { o.mu.Lock(); defer o.mu.Unlock(); o.hold = h }

var owners sync.Map // *world → *owner

func (w *world) owner() *owner {
	o, _ := owners.LoadOrStore(w, &owner{})
	return o.(*owner)
}

func (w *world) hold(mesh.Workload) Hold {
	o := w.owner()
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.hold
}

func (w *world) ended(mesh.Workload, driver.Task) {
	o := w.owner()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ends++
}

// seen is a task as the supervisor gets it: one that can be frozen, or not.
func (w *world) seen(t *fakeTask) driver.Task {
	if w.clinic != nil {
		return patient{t, w.clinic}
	}
	if w.pausable {
		return freezable{t}
	}
	return t
}

type freezable struct{ *fakeTask }

var _ driver.Pauser = freezable{}

func (f freezable) Pause(context.Context) error {
	f.w.set(func() { f.frozen = true })
	return nil
}

func (f freezable) Resume(context.Context) error {
	f.w.set(func() { f.frozen = false })
	return nil
}

// runs says what executes in the world: nothing, a frozen run, or a run.
func (w *world) runs() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.tasks[id]
	if t == nil || closed(t.done) {
		return "nothing"
	}
	if t.frozen {
		return "frozen"
	}
	return "run"
}

func (w *world) wantRuns(t interface {
	Fatalf(string, ...any)
	Helper()
}, want ...string,
) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !slices.Contains(want, w.runs()); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("what executes is %q, want %q", w.runs(), want)
		}
	}
}

func (l *life) held(w *world, h Hold) {
	w.owner().set(h)
	l.KickAll()
}

func TestHoldLevels(t *testing.T) {
	for _, c := range []struct {
		name     string
		pausable bool
		job      bool
		level    Level
		runs     string
		state    mesh.State
	}{
		{"what runs goes on", true, false, NoStart, "run", mesh.Running},
		{"a container is frozen", true, false, Pause, "frozen", mesh.Paused},
		{"a service that cannot be frozen is ended", false, false, Pause, "nothing", mesh.Paused},
		{"a job goes on", false, true, Pause, "run", mesh.Running},
		{"a container is ended", true, false, End, "nothing", mesh.Paused},
		{"a job is ended", false, true, End, "nothing", mesh.Paused},
	} {
		t.Run(c.name, func(t *testing.T) {
			st, w := openStore(t), newWorld()
			w.pausable = c.pausable
			r := record(mesh.RestartAlways)
			if c.job {
				r.Workload.Spec.Shape = mesh.Job
			}
			put(t, st, r)
			l := live(t, st, w)
			l.want(t, mesh.Running)
			l.held(w, Hold{Level: c.level, Reason: "lends from 22:00"})
			got := l.want(t, c.state)
			w.wantRuns(t, c.runs)
			if c.state == mesh.Paused && got.Reason != "lends from 22:00" {
				t.Errorf("the reason is %q", got.Reason)
			}
			for range 2 { // it stays so over crashes, and nothing desired is lost
				l.stop()
				l = live(t, st, w)
				l.want(t, c.state)
				w.wantRuns(t, c.runs)
			}
			l.held(w, Hold{})
			l.want(t, mesh.Running)
			w.wantRuns(t, "run")
			if starts := w.starts(id); c.runs == "nothing" && starts != 2 || c.runs != "nothing" && starts != 1 {
				t.Errorf("started %d times", starts)
			}
		})
	}
}

// A workload that is accepted while it is held, or whose run ends meanwhile, waits.
func TestHeldIsNotStarted(t *testing.T) {
	st, w := openStore(t), newWorld()
	w.owner().set(Hold{Level: NoStart, Reason: "no fuel"})
	put(t, st, record(mesh.RestartAlways))
	l := live(t, st, w)
	l.want(t, mesh.Paused)
	if w.starts(id) != 0 {
		t.Fatal("it was started")
	}
	l.held(w, Hold{})
	l.want(t, mesh.Running)
	l.held(w, Hold{Level: NoStart, Reason: "no fuel"})
	w.task(id).end(mesh.Exit{Code: 1})
	l.want(t, mesh.Paused)
	l.change(t, st, Stop)
	l.want(t, mesh.Stopped) // what its owner wants goes before
	if w.starts(id) != 1 {
		t.Errorf("started %d times", w.starts(id))
	}
	l.change(t, st, Remove)
	w.wantRuns(t, "nothing")
}

// One that is frozen can be stopped, and its end is noticed.
func TestFrozenEnds(t *testing.T) {
	st, w := openStore(t), newWorld()
	w.pausable = true
	put(t, st, record(mesh.RestartAlways))
	l := live(t, st, w)
	l.want(t, mesh.Running)
	l.held(w, Hold{Level: Pause, Reason: "lends from 22:00"})
	l.want(t, mesh.Paused)
	w.task(id).end(mesh.Exit{Code: 137}) // somebody kills it
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		o := w.owner()
		o.mu.Lock()
		ends := o.ends
		o.mu.Unlock()
		if ends == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d ends were told", ends)
		}
	}
	l.held(w, Hold{})
	l.want(t, mesh.Running)
	l.held(w, Hold{Level: Pause, Reason: "lends from 22:00"})
	l.want(t, mesh.Paused)
	l.change(t, st, Stop)
	l.want(t, mesh.Stopped)
	w.wantRuns(t, "nothing")
}

// What was frozen goes on where the next hold is a lesser one, and is no more frozen when
// that is over.
func TestFrozenGoesOnUnderALesserHold(t *testing.T) {
	st, w := openStore(t), newWorld()
	w.pausable = true
	put(t, st, record(mesh.RestartAlways))
	l := live(t, st, w)
	l.want(t, mesh.Running)
	l.held(w, Hold{Level: Pause, Reason: "lends from 22:00"})
	w.wantRuns(t, "frozen")
	l.held(w, Hold{Level: NoStart, Reason: "no fuel"})
	w.wantRuns(t, "run")
	l.held(w, Hold{})
	l.want(t, mesh.Running)
	w.wantRuns(t, "run")
	if w.starts(id) != 1 {
		t.Errorf("started %d times", w.starts(id))
	}
}

// Whatever holds, crashes and ends come in whatever order: what executes is what
// is desired and allowed, and the desire is never lost.
func TestHoldsAgainstAModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		st, w := openStore(t), newWorld()
		w.pausable = rapid.Bool().Draw(rt, "can be frozen")
		put(t, st, record(mesh.RestartAlways))
		l := live(t, st, w)
		desired, hold := Run, Hold{}
		defer l.stop()
		steps := rapid.SliceOfN(rapid.SampledFrom([]string{"free", "nostart", "pause", "end", "crash", "die", "settle", "stop", "run"}), 1, 12).Draw(rt, "steps")
		for _, step := range append(steps, "settle") {
			switch step {
			case "free", "nostart", "pause", "end":
				hold = map[string]Hold{"free": {}, "nostart": {Level: NoStart, Reason: "n"}, "pause": {Level: Pause, Reason: "p"}, "end": {Level: End, Reason: "e"}}[step]
				l.held(w, hold)
			case "crash":
				l.stop()
				l = live(t, st, w)
			case "die":
				if task := w.task(id); task != nil {
					task.end(mesh.Exit{Code: 1})
				}
			case "stop", "run":
				desired = Desired(step)
				l.change(t, st, desired)
			case "settle":
				switch {
				case desired == Stop, hold.Level == End, hold.Level == Pause && !w.pausable:
					w.wantRuns(rt, "nothing")
				case hold.Level == Pause: // frozen if it ran by then
					w.wantRuns(rt, "nothing", "frozen")
				case hold.Level == Free:
					w.wantRuns(rt, "run")
				}
			}
			err := st.View(func(tx *store.Tx) error {
				r, err := Get(tx, id)
				if err == nil && r.Desired != desired {
					err = fmt.Errorf("the desire is %q, want %q", r.Desired, desired)
				}
				return err
			})
			if err != nil {
				rt.Fatal(err)
			}
		}
		l.held(w, Hold{})
		if desired == Run {
			w.wantRuns(rt, "run")
		}
	})
}
