package supervisor

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"peercompute/pkg/admission"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

const (
	second mesh.WorkloadID = "cccccccccccccccc"
	third  mesh.WorkloadID = "dddddddddddddddd"
)

// next asks for another revision, as a node does.
func (l *life) next(t *testing.T, st *store.Store, n Next) {
	t.Helper()
	err := st.Update(context.Background(), func(tx *store.Tx) error {
		r, err := Get(tx, id)
		if err != nil {
			return err
		}
		if n.Spec.Name == "" {
			n.Spec = r.Workload.Spec
		}
		before := r.Serving()
		v := Revision{Number: r.Supersede(n), Spec: n.Spec, By: me, Served: r.Next == nil}
		if err := PutRevision(tx, id, v, max(before, r.Serving())); err != nil {
			return err
		}
		return Put(tx, r)
	})
	if err != nil {
		t.Fatal(err)
	}
	l.Kick(id)
}

func get(t *testing.T, st *store.Store) (r Record) {
	t.Helper()
	if err := st.View(func(tx *store.Tx) (err error) { r, err = Get(tx, id); return err }); err != nil {
		t.Fatal(err)
	}
	return r
}

// until waits for what it has no channel for.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not yet: %s", what)
		}
	}
}

// over reports that a revision serves and nothing is left of any other run.
func over(t *testing.T, st *store.Store, w *world, run mesh.WorkloadID) func() bool {
	return func() bool {
		r := get(t, st)
		w.mu.Lock()
		defer w.mu.Unlock()
		return r.Current() == run && r.Next == nil && len(r.Retired) == 0 && len(w.tasks) == 1 && w.tasks[run] != nil
	}
}

// The new revision starts beside the old one, and the old one is ended only when the
// new one is ready and its own connections have gone.
func TestUpdateSwitchesOver(t *testing.T) {
	st, w := openStore(t), newWorld()
	l := liveFor(t, st, w, time.Minute)
	put(t, st, record(mesh.RestartAlways))
	l.Kick(id)
	l.want(t, mesh.Running)
	old, giveBack, err := l.Borrow(id)
	if err != nil || old.ID() != id {
		t.Fatal(old, err)
	}
	w.set(func() { w.deafRuns = map[mesh.WorkloadID]bool{second: true} })
	l.next(t, st, Next{Run: second})
	until(t, "the new revision starts", func() bool { return w.starts(second) == 1 })
	if now, err := l.Task(id); err != nil || now.ID() != id {
		t.Fatal("before the new revision is ready visitors reach", now, err)
	}
	w.set(func() { w.deafRuns = nil })
	until(t, "the switch", func() bool { return get(t, st).Serving() == 2 })
	until(t, "visitors reach the new revision", func() bool { now, err := l.Task(id); return err == nil && now.ID() == second })
	running := old.(*fakeTask)
	until(t, "the old revision waits for its connections", func() bool {
		if closed(running.done) {
			t.Fatal("the old revision was ended while a connection to it was open")
		}
		st, ok := l.StatusOf(id, id)
		return ok && st.State == mesh.Stopping
	})
	time.Sleep(20 * time.Millisecond) // what must not happen has no moment to wait for
	if closed(running.done) {
		t.Fatal("the old revision was ended while a connection to it was open")
	}
	if st, _, ok := l.Status(id); !ok || st.State != mesh.Running {
		t.Fatalf("during the switch the workload is %s", st.State)
	}
	giveBack()
	giveBack() // counts once
	until(t, "only the new revision is left", over(t, st, w, second))
}

func TestUpdateLeavesNothing(t *testing.T) {
	for _, recreate := range []bool{false, true} {
		t.Run(fmt.Sprint("recreate ", recreate), func(t *testing.T) {
			st, w := openStore(t), newWorld()
			l := live(t, st, w)
			put(t, st, record(mesh.RestartAlways))
			l.Kick(id)
			l.want(t, mesh.Running)
			both := atomic.Bool{}
			w.onStart = func() { both.Store(both.Load() || len(w.alive()) > 1) }
			l.next(t, st, Next{Run: second, Recreate: recreate})
			until(t, "only the new revision is left", over(t, st, w, second))
			l.next(t, st, Next{Run: third, Recreate: recreate})
			until(t, "only the newest revision is left", over(t, st, w, third))
			if both.Load() == recreate {
				t.Errorf("two revisions ran at once: %v", both.Load())
			}
			if w.starts(id) != 1 || w.starts(second) != 1 || w.starts(third) != 1 {
				t.Error("a revision was started more than once")
			}
			l.change(t, st, Remove)
			until(t, "all is removed", func() bool {
				w.mu.Lock()
				defer w.mu.Unlock()
				return len(w.tasks) == 0
			})
			until(t, "the record and the history go", func() bool {
				gone := false
				_ = st.View(func(tx *store.Tx) error {
					_, err := Get(tx, id)
					h, _ := History(tx, id)
					gone = mesh.KindOf(err) == mesh.NotFound && len(h) == 0
					return nil
				})
				return gone
			})
		})
	}
}

// A revision that cannot be got ready leaves the one before serving, untouched or
// started again, and is remembered as failed.
func TestBrokenUpdateKeepsTheOld(t *testing.T) {
	for _, recreate := range []bool{false, true} {
		for what, spoil := range map[string]func(w *world){
			"deaf":  func(w *world) { w.deafRuns = map[mesh.WorkloadID]bool{second: true} },
			"exits": func(w *world) { w.exitRuns = map[mesh.WorkloadID]mesh.Exit{second: {Code: 3}} },
		} {
			t.Run(fmt.Sprint(what, " recreate ", recreate), func(t *testing.T) {
				st, w := openStore(t), newWorld()
				l := live(t, st, w)
				put(t, st, record(mesh.RestartAlways))
				l.Kick(id)
				l.want(t, mesh.Running)
				w.set(func() { spoil(w) })
				l.next(t, st, Next{Run: second, Recreate: recreate})
				until(t, "the update fails", func() bool { n := get(t, st).Next; return n != nil && n.Last.State == mesh.Failed })
				l.want(t, mesh.Running)
				until(t, "the old revision serves", func() bool { now, err := l.Task(id); return err == nil && now.ID() == id })
				if r := get(t, st); r.Serving() != 1 || r.Updating() {
					t.Errorf("serving %d, updating %v", r.Serving(), r.Updating())
				}
				if n := w.starts(id); !recreate && n != 1 || recreate && n != 2 {
					t.Errorf("the old revision was started %d times", n)
				}
				err := st.View(func(tx *store.Tx) error {
					h, err := History(tx, id)
					if err == nil && (len(h) != 1 || h[0].Failure == "" || h[0].Served) {
						t.Errorf("history: %+v", h)
					}
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
				w.set(func() { w.deafRuns, w.exitRuns = nil, nil })
				l.next(t, st, Next{Run: third})
				until(t, "the next one takes over", over(t, st, w, third))
			})
		}
	}
}

// A later update overtakes one that is not ready.
func TestUpdateIsOvertaken(t *testing.T) {
	st, w := openStore(t), newWorld()
	l := liveFor(t, st, w, time.Minute)
	put(t, st, record(mesh.RestartAlways))
	l.Kick(id)
	l.want(t, mesh.Running)
	w.set(func() { w.deafRuns = map[mesh.WorkloadID]bool{second: true} })
	l.next(t, st, Next{Run: second})
	until(t, "it starts", func() bool { return w.starts(second) == 1 })
	l.next(t, st, Next{Run: third})
	until(t, "only the later one is left", over(t, st, w, third))
	if got := get(t, st).Serving(); got != 3 {
		t.Errorf("revision %d serves, want 3", got)
	}
}

// What is stopped or removed takes its update with it; what was stopped and is
// deployed again is the new revision, and the old one does not come back.
func TestUpdateOfWhatIsStopped(t *testing.T) {
	st, w := openStore(t), newWorld()
	l := liveFor(t, st, w, time.Minute)
	put(t, st, record(mesh.RestartAlways))
	l.Kick(id)
	l.want(t, mesh.Running)
	w.set(func() { w.deafRuns = map[mesh.WorkloadID]bool{second: true} })
	l.next(t, st, Next{Run: second})
	until(t, "it starts", func() bool { return w.starts(second) == 1 })
	l.change(t, st, Stop)
	l.want(t, mesh.Stopped)
	until(t, "the update is given up", func() bool { return get(t, st).Next == nil && w.task(second) == nil })
	w.set(func() { w.deafRuns = nil })
	l.next(t, st, Next{Run: third})
	until(t, "the new revision runs alone", over(t, st, w, third))
	l.want(t, mesh.Running)
	if w.starts(id) != 1 {
		t.Error("the revision that was stopped was started again")
	}
}

// Wherever peerd ends during an update, the next one finds one revision serving, the
// update goes on to its end, and nothing of the other is left.
func TestUpdateSurvivesARestart(t *testing.T) {
	for _, recreate := range []bool{false, true} {
		for step := range 40 {
			st, w := openStore(t), newWorld()
			l := live(t, st, w)
			put(t, st, record(mesh.RestartAlways))
			l.Kick(id)
			l.want(t, mesh.Running)
			// The supervisor ends after so many calls to its runtime or writes, wherever
			// they fall.
			var left atomic.Int64
			left.Store(int64(step))
			ended := make(chan struct{})
			w.set(func() {
				w.onCall = func() {
					if left.Add(-1) == 0 {
						close(ended)
					}
				}
			})
			l.next(t, st, Next{Run: second, Recreate: recreate})
			select {
			case <-ended:
			case <-time.After(time.Duration(step) * time.Millisecond):
			}
			l.stop()
			w.set(func() { w.onCall = nil })
			r := get(t, st)
			if alive := w.aliveNow(); !recreate && !slices.Contains(alive, r.Current()) {
				t.Fatalf("step %d: revision %d is to serve and runs no more; alive: %v", step, r.Serving(), alive)
			}
			l = live(t, st, w)
			until(t, "the update ends", over(t, st, w, second))
			l.want(t, mesh.Running)
			if w.starts(second) != 1 {
				t.Errorf("step %d: the new revision was started %d times", step, w.starts(second))
			}
			l.stop()
		}
	}
}

func TestUsageOfUpdates(t *testing.T) {
	r := record(mesh.RestartAlways)
	r.Workload.Spec.Resources.Memory = 100
	spec := r.Workload.Spec
	spec.Resources.Memory = 150
	sum := func(r Record) (int, int64) {
		var h admission.Held
		r.AddTo(&h)
		return h.Workloads, h.Resources.Memory
	}
	check := func(what string, workloads int, memory int64) {
		t.Helper()
		if n, m := sum(r); n != workloads || m != memory {
			t.Errorf("%s: %d workloads and %d bytes, want %d and %d", what, n, m, workloads, memory)
		}
	}
	check("one revision", 1, 100)
	r.Supersede(Next{Run: second, Spec: spec})
	check("two beside each other", 2, 250)
	r.Next.Recreate = true
	check("one after the other", 1, 150)
	r.Next.Recreate = false
	r.takeOver()
	check("the old one on its way out", 2, 250)
	r.drop(id)
	check("the new one", 1, 150)
	r.Supersede(Next{Run: third, Spec: spec})
	r.Next.Last.State = mesh.Failed
	check("one that failed", 1, 150)
	r.Supersede(Next{Run: "eeeeeeeeeeeeeeee", Spec: spec})
	check("after one that failed", 2, 300)
	r.Desired = Stop
	r.Retired = nil
	check("stopped", 0, 0)
}

func TestHistoryIsBounded(t *testing.T) {
	st := openStore(t)
	err := st.Update(context.Background(), func(tx *store.Tx) error {
		for n := 1; n <= 30; n++ {
			if err := PutRevision(tx, id, Revision{Number: n, By: me}, 2); err != nil {
				return err
			}
			if err := PutRevision(tx, second, Revision{Number: n, By: me}, n); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	numbers := func(of mesh.WorkloadID) (out []int) {
		_ = st.View(func(tx *store.Tx) error {
			h, err := History(tx, of)
			for _, v := range h {
				out = append(out, v.Number)
			}
			return err
		})
		return out
	}
	if got := numbers(id); !slices.Equal(got, []int{2, 22, 23, 24, 25, 26, 27, 28, 29, 30}) {
		t.Errorf("remembered: %v", got)
	}
	if got := numbers(second); len(got) != MaxRevisions || got[0] != 21 {
		t.Errorf("remembered: %v", got)
	}
}

// Whoever acts on a record that was read a moment ago must not switch back.
func TestReachedRevisionOnlyGrows(t *testing.T) {
	var g group
	if !g.reach(id, 1) || !g.reach(second, 2) || g.reach(id, 1) || g.current != second {
		t.Errorf("reached: %s, revision %d", g.current, g.revision)
	}
}
