package supervisor

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/goleak"

	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a runtime that behaves: it outlives supervisors, as an engine does.
type world struct {
	mu       sync.Mutex
	tasks    map[mesh.WorkloadID]*fakeTask
	started  map[mesh.WorkloadID]int
	removed  map[mesh.WorkloadID]int
	prepare  error
	start    error
	adoptErr error
	deaf     bool      // tasks never answer
	exits    mesh.Exit // with die, how new tasks end at once
	die      bool
	pausable bool                          // tasks can be frozen
	deafRuns map[mesh.WorkloadID]bool      // runs that never answer
	exitRuns map[mesh.WorkloadID]mesh.Exit // runs that end at once
	onStart  func()                        // called with each start, under mu
	onCall   func()                        // called with each start, stop and removal, under mu
	clinic   *clinic                       // how tasks answer health checks; nil = they take no part
	stop     func(context.Context) error   // called before a task is ended, which it can keep from that
}

func newWorld() *world {
	return &world{tasks: map[mesh.WorkloadID]*fakeTask{}, started: map[mesh.WorkloadID]int{}, removed: map[mesh.WorkloadID]int{}}
}

type fakeTask struct {
	w    *world
	id   mesh.WorkloadID
	done chan struct{}
	once sync.Once
	exit mesh.Exit

	frozen bool // guarded by w.mu
}

var _ driver.Driver = (*world)(nil)

func (w *world) Prepare(context.Context, mesh.Workload, func(mesh.Progress)) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return "sha256:x", w.prepare
}

func (w *world) Start(_ context.Context, wl mesh.Workload) (driver.Task, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.start != nil {
		return nil, w.start
	}
	if old := w.tasks[wl.ID]; old != nil {
		old.end(mesh.Exit{Code: 137})
	}
	t := &fakeTask{w: w, id: wl.ID, done: make(chan struct{})}
	w.tasks[wl.ID] = t
	w.started[wl.ID]++
	if w.die {
		t.end(w.exits)
	}
	if x, ends := w.exitRuns[wl.ID]; ends {
		t.end(x)
	}
	if w.onStart != nil {
		w.onStart()
	}
	w.called()
	return w.seen(t), nil
}

func (w *world) Adopt(context.Context) ([]driver.Task, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []driver.Task
	for _, t := range w.tasks {
		out = append(out, w.seen(t))
	}
	return out, w.adoptErr
}

func (w *world) Remove(_ context.Context, id mesh.WorkloadID) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.called()
	delete(w.tasks, id)
	w.removed[id]++
	return nil
}

func (w *world) Logs(context.Context, mesh.WorkloadID, driver.LogOptions) (driver.LogReader, error) {
	return nil, mesh.Errorf(mesh.NotFound, "it has no log")
}

func (w *world) starts(id mesh.WorkloadID) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.started[id]
}

func (w *world) task(id mesh.WorkloadID) *fakeTask {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.tasks[id]
}

func (w *world) called() {
	if w.onCall != nil {
		w.onCall()
	}
}

// alive lists what has not ended; the caller holds mu.
func (w *world) alive() (ids []mesh.WorkloadID) {
	for id, t := range w.tasks {
		if !closed(t.done) {
			ids = append(ids, id)
		}
	}
	return ids
}

func (w *world) aliveNow() []mesh.WorkloadID { w.mu.Lock(); defer w.mu.Unlock(); return w.alive() }

func (w *world) set(f func()) { w.mu.Lock(); defer w.mu.Unlock(); f() }

func (t *fakeTask) end(x mesh.Exit) { t.once.Do(func() { t.exit = x; close(t.done) }) }

func (t *fakeTask) ID() mesh.WorkloadID { return t.id }

func (t *fakeTask) Dial(context.Context) (net.Conn, error) {
	t.w.mu.Lock()
	defer t.w.mu.Unlock()
	if t.w.deaf || t.w.deafRuns[t.id] || closed(t.done) {
		return nil, mesh.Errorf(mesh.Unavailable, "nothing listens")
	}
	a, b := net.Pipe()
	b.Close()
	return a, nil
}

func (t *fakeTask) Wait(ctx context.Context) (mesh.Exit, error) {
	select {
	case <-t.done:
		return t.exit, nil
	case <-ctx.Done():
		return mesh.Exit{}, ctx.Err()
	}
}

func (t *fakeTask) Stats(context.Context) (mesh.Stats, error) { return mesh.Stats{}, nil }

func (t *fakeTask) Stop(ctx context.Context, _ time.Duration) error {
	t.w.set(t.w.called)
	if t.w.stop != nil {
		if err := t.w.stop(ctx); err != nil {
			return err
		}
	}
	t.end(mesh.Exit{Code: 143})
	return nil
}

// life is one run of a supervisor over a store.
type life struct {
	*Supervisor
	stop func()

	mu   sync.Mutex
	past []mesh.Status // all that the workload was, for what it may not be for long
}

// was reports whether the workload's status was ever like that.
func (l *life) was(like func(mesh.Status) bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.past, like)
}

func live(t *testing.T, st *store.Store, w *world) *life {
	t.Helper()
	return liveFor(t, st, w, 300*time.Millisecond)
}

func liveFor(t *testing.T, st *store.Store, w *world, ready time.Duration) *life {
	t.Helper()
	l := &life{}
	s := New(Config{
		Store: st, Drivers: map[mesh.Runtime]driver.Driver{mesh.Container: w},
		Log: slog.New(slog.DiscardHandler), Now: time.Now, Ready: ready,
		Hold: w.hold, OnEnd: w.ended,
		OnStatus: func(_ mesh.WorkloadID, s mesh.Status) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.past = append(l.past, s)
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var once sync.Once
	l.Supervisor, l.stop = s, func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(l.stop)
	return l
}

func openStore(t *testing.T) *store.Store {
	t.Helper()
	st, err := store.Open(filepath.Join(t.TempDir(), store.FileName))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	return st
}

const id mesh.WorkloadID = "aaaaaaaaaaaaaaaa"

// me is any peer ID.
var me = peer.ID("\x00\x24\x08\x01\x12\x20" + strings.Repeat("k", 32))

func record(restart mesh.Restart) Record {
	return Record{Desired: Run, Workload: mesh.Workload{
		ID: id, Owner: me,
		Spec: mesh.Spec{Name: "w", Runtime: mesh.Container, Image: "i", Port: 80, Restart: restart}.WithDefaults(),
	}}
}

func put(t *testing.T, st *store.Store, r Record) {
	t.Helper()
	if err := st.Update(context.Background(), func(tx *store.Tx) error { return Put(tx, r) }); err != nil {
		t.Fatal(err)
	}
}

func (l *life) want(t *testing.T, state mesh.State) mesh.Status {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		st, changed, ok := l.Status(id)
		if ok && st.State == state {
			return st
		}
		if !ok {
			changed = nil
		}
		select {
		case <-changed:
		case <-time.After(5 * time.Millisecond):
		case <-deadline:
			t.Fatalf("the state is %s (%s), want %s", st.State, st.Reason, state)
		}
	}
}

func (l *life) change(t *testing.T, st *store.Store, d Desired) {
	t.Helper()
	err := st.Update(context.Background(), func(tx *store.Tx) error {
		r, err := Get(tx, id)
		if err != nil {
			return err
		}
		r.Desired = d
		return Put(tx, r)
	})
	if err != nil {
		t.Fatal(err)
	}
	l.Kick(id)
}

func TestRunStopRemove(t *testing.T) {
	st, w := openStore(t), newWorld()
	l := live(t, st, w)
	put(t, st, record(mesh.RestartAlways))
	l.Kick(id)
	l.want(t, mesh.Running)
	if _, err := l.Task(id); err != nil {
		t.Fatal(err)
	}
	l.change(t, st, Stop)
	l.want(t, mesh.Stopped)
	if _, err := l.Task(id); err == nil {
		t.Fatal("a stopped workload can be dialled")
	}
	l.change(t, st, Remove)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := st.View(func(tx *store.Tx) error { _, err := Get(tx, id); return err })
		if mesh.KindOf(err) == mesh.NotFound {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the record is not removed")
		}
	}
	if w.starts(id) != 1 || w.task(id) != nil {
		t.Fatalf("started %d times, task left: %v", w.starts(id), w.task(id))
	}
}

// A restarted peerd finds the same run, and does not start it again.
func TestAdoption(t *testing.T) {
	st, w := openStore(t), newWorld()
	put(t, st, record(mesh.RestartAlways))
	l := live(t, st, w)
	l.want(t, mesh.Running)
	first := w.task(id)
	l.stop()
	l = live(t, st, w)
	l.want(t, mesh.Running)
	if w.task(id) != first || w.starts(id) != 1 {
		t.Fatal("the workload was started anew instead of adopted")
	}
}

// What runs and belongs to no record is ended.
func TestOrphansAreEnded(t *testing.T) {
	st, w := openStore(t), newWorld()
	orphan, err := w.Start(context.Background(), mesh.Workload{ID: "bbbbbbbbbbbbbbbb"})
	if err != nil {
		t.Fatal(err)
	}
	var tries atomic.Int32
	w.stop = func(context.Context) error {
		if tries.Add(1) == 1 {
			return mesh.Errorf(mesh.Unavailable, "engine away")
		}
		return nil
	}
	put(t, st, record(mesh.RestartAlways))
	l := live(t, st, w)
	l.want(t, mesh.Running)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if _, err := orphan.Wait(ctx); err != nil {
		t.Fatal("the orphan still runs")
	}
}

// While the runtime cannot say what runs, nothing is started: it could be doubled.
func TestNothingStartsBeforeAdoption(t *testing.T) {
	st, w := openStore(t), newWorld()
	w.adoptErr = errors.New("engine away")
	put(t, st, record(mesh.RestartAlways))
	l := live(t, st, w)
	l.Kick(id)
	time.Sleep(150 * time.Millisecond)
	if w.starts(id) != 0 {
		t.Fatal("started before it was known what runs")
	}
	w.set(func() { w.adoptErr = nil })
	l.want(t, mesh.Running)
}

func TestRestartPolicies(t *testing.T) {
	for _, c := range []struct {
		policy mesh.Restart
		code   int
		again  bool
	}{
		{mesh.RestartNo, 1, false},
		{mesh.RestartNo, 0, false},
		{mesh.RestartOnFailure, 0, false},
		{mesh.RestartOnFailure, 1, true},
		{mesh.RestartAlways, 0, true},
		{mesh.RestartAlways, 2, true},
	} {
		st, w := openStore(t), newWorld()
		put(t, st, record(c.policy))
		l := live(t, st, w)
		l.want(t, mesh.Running)
		w.task(id).end(mesh.Exit{Code: c.code})
		if !c.again {
			got := l.want(t, mesh.Exited)
			if got.ExitCode != c.code {
				t.Errorf("%s: exit code %d, want %d", c.policy, got.ExitCode, c.code)
			}
			l.stop()
			l = live(t, st, w) // and it stays so after a restart
			l.want(t, mesh.Exited)
			if w.starts(id) != 1 {
				t.Errorf("%s, code %d: started %d times", c.policy, c.code, w.starts(id))
			}
			continue
		}
		for deadline := time.Now().Add(20 * time.Second); w.starts(id) < 2; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s, code %d: not started again", c.policy, c.code)
			}
		}
		if got := l.want(t, mesh.Running); got.Restarts != 1 {
			t.Errorf("%s: %d restarts, want 1", c.policy, got.Restarts)
		}
	}
}

func TestGivesUpOnWhatNeverAnswers(t *testing.T) {
	st, w := openStore(t), newWorld()
	w.deaf, w.die, w.exits = true, true, mesh.Exit{Code: 3}
	put(t, st, record(mesh.RestartOnFailure))
	l := live(t, st, w)
	got := l.want(t, mesh.Failed)
	if w.starts(id) != firstAttempts || !strings.Contains(got.Reason, "exited with code 3") {
		t.Fatalf("after %d starts: %q", w.starts(id), got.Reason)
	}
}

// What has answered once is not given up in a later life of peerd: after a power failure
// it may end again and again until something else that it needs is there.
func TestNeverGivesUpOnWhatHasAnswered(t *testing.T) {
	st, w := openStore(t), newWorld()
	put(t, st, record(mesh.RestartAlways))
	l := live(t, st, w)
	until(t, "that it answered is on record", func() bool { return get(t, st).Answered })
	l.stop()
	w.set(func() {
		w.tasks[id].end(mesh.Exit{Code: 137})
		w.deaf, w.die, w.exits = true, true, mesh.Exit{Code: 3}
	})
	l = live(t, st, w)
	until(t, "it was started more often", func() bool { return w.starts(id) > 1+firstAttempts })
	w.set(func() { w.deaf, w.die = false, false })
	l.want(t, mesh.Running)

	// What takes its place has not answered.
	w.set(func() { w.deaf, w.die = true, true })
	r := get(t, st)
	r.Supersede(Next{Run: "bbbbbbbbbbbbbbbb", Spec: r.Workload.Spec})
	if r.takeOver(); r.Answered {
		t.Error("a revision has answered that never ran")
	}
}

func TestDeafWorkloadFails(t *testing.T) {
	st, w := openStore(t), newWorld()
	w.deaf = true
	put(t, st, record(mesh.RestartOnFailure))
	l := live(t, st, w)
	got := l.want(t, mesh.Failed)
	if !strings.Contains(got.Reason, "port 80") {
		t.Fatalf("reason %q does not name the port", got.Reason)
	}
	select {
	case <-w.task(id).done:
	default:
		t.Fatal("it failed but was left running")
	}
}

// What does not answer and cannot be ended is not taken for ended.
func TestStopsThatFail(t *testing.T) {
	t.Run("the engine is away", func(t *testing.T) {
		st, w := openStore(t), newWorld()
		w.deaf = true
		var tries atomic.Int32
		w.stop = func(context.Context) error {
			if tries.Add(1) == 1 {
				return mesh.Errorf(mesh.Unavailable, "engine away")
			}
			return nil
		}
		put(t, st, record(mesh.RestartNo))
		l := live(t, st, w)
		l.want(t, mesh.Failed)
		if left := w.aliveNow(); len(left) > 0 {
			t.Fatalf("it failed, and %v runs on", left)
		}
	})
	t.Run("its owner stops it meanwhile", func(t *testing.T) {
		st, w := openStore(t), newWorld()
		w.deaf = true
		var tries atomic.Int32
		begun := make(chan struct{})
		w.stop = func(ctx context.Context) error {
			if tries.Add(1) == 1 {
				close(begun)
				<-ctx.Done()
			}
			return ctx.Err()
		}
		put(t, st, record(mesh.RestartNo))
		l := live(t, st, w)
		<-begun
		l.change(t, st, Stop)
		l.want(t, mesh.Stopped)
		if left := w.aliveNow(); len(left) > 0 {
			t.Fatalf("it is shown as stopped, and %v runs on", left)
		}
	})
}

// failures counts what is logged as an error.
type failures chan string

func (f failures) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelError }
func (f failures) WithAttrs([]slog.Attr) slog.Handler           { return f }
func (f failures) WithGroup(string) slog.Handler                { return f }
func (f failures) Handle(_ context.Context, r slog.Record) error {
	select {
	case f <- r.Message:
	default:
	}
	return nil
}

// A run whose end cannot be written down is not begun again: that is tried until it can.
func TestEndThatCannotBeRecorded(t *testing.T) {
	st, w := openStore(t), newWorld()
	const next mesh.WorkloadID = "bbbbbbbbbbbbbbbb"
	w.exitRuns = map[mesh.WorkloadID]mesh.Exit{next: {Code: 3}}
	r := record(mesh.RestartNo)
	r.Supersede(Next{Run: next, Spec: r.Workload.Spec})
	put(t, st, r)
	damage := func(with string) {
		err := st.Update(context.Background(), func(tx *store.Tx) error {
			return tx.Put(store.Revisions, revisionKey(id, r.Next.Revision), []byte(with))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	damage("no JSON")
	logged := make(failures, 100)
	s := New(Config{
		Store: st, Drivers: map[mesh.Runtime]driver.Driver{mesh.Container: w}, Log: slog.New(logged), Now: time.Now, Ready: time.Second,
	})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = s.Run(ctx) })
	defer running.Wait()
	defer cancel()
	for range 2 {
		select {
		case <-logged:
		case <-time.After(10 * time.Second):
			t.Fatal("nobody tells that the end cannot be recorded")
		}
	}
	if n := w.starts(next); n != 1 {
		t.Fatalf("it was started %d times", n)
	}
	damage("{}")
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if got := get(t, st); got.Next.Last.State == mesh.Exited {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("its end is never recorded")
		}
	}
	if n := w.starts(next); n != 1 {
		t.Fatalf("in the end it was started %d times", n)
	}
}

func TestRuntimeTroubleIsRetried(t *testing.T) {
	st, w := openStore(t), newWorld()
	w.start = mesh.Errorf(mesh.Unavailable, "engine away")
	put(t, st, record(mesh.RestartOnFailure))
	l := live(t, st, w)
	time.Sleep(300 * time.Millisecond)
	w.set(func() { w.start = nil })
	l.want(t, mesh.Running)
}

func TestRefusedPreparationFails(t *testing.T) {
	st, w := openStore(t), newWorld()
	w.prepare = mesh.Errorf(mesh.NotFound, "no such image")
	put(t, st, record(mesh.RestartAlways))
	l := live(t, st, w)
	if got := l.want(t, mesh.Failed); got.Reason != "no such image" {
		t.Fatalf("reason %q", got.Reason)
	}
}

// What a peer holds is freed exactly when its workload has ended for good.
func TestUsage(t *testing.T) {
	st := openStore(t)
	running, exited, stopped := record(""), record(""), record("")
	exited.Workload.ID, exited.Last.State = "bbbbbbbbbbbbbbbb", mesh.Exited
	stopped.Workload.ID, stopped.Desired = "cccccccccccccccc", Stop
	for _, r := range []Record{running, exited, stopped} {
		put(t, st, r)
	}
	err := st.View(func(tx *store.Tx) error {
		u, err := Usage(tx, me, nil)
		if u.Peer.Workloads != 1 || u.Host.Workloads != 1 || u.Peer.Resources.Memory != mesh.DefaultMemory {
			t.Errorf("usage %+v, want that of the running one", u)
		}
		if u, _ := Usage(tx, me[:37]+"x", nil); u.Peer.Workloads != 0 || u.Host.Workloads != 1 {
			t.Errorf("another peer's usage %+v", u)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
