package jobs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a queue whose jobs do what the test says.
type rig struct {
	*Queue
	t     *testing.T
	store *store.Store
	n     int

	stop       func()
	closeStore func()

	mu     sync.Mutex
	refuse error
	runs   map[mesh.WorkloadID]int // begun
	held   int
	do     func(ctx context.Context, j Job, out, log io.Writer) (Result, error)
}

func newRig(t *testing.T, path string, slots int, l Limits) *rig {
	t.Helper()
	if _, err := os.Stat(filepath.Join(path, store.FileName)); err != nil {
		if err := store.Create(filepath.Join(path, store.FileName)); err != nil {
			t.Fatal(err)
		}
	}
	s, err := store.Open(filepath.Join(path, store.FileName))
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, store: s, runs: map[mesh.WorkloadID]int{}}
	r.do = func(_ context.Context, j Job, out, _ io.Writer) (Result, error) {
		fmt.Fprintf(out, "ran %s", j.Spec.Name)
		return Result{Receipt: []byte("receipt")}, nil
	}
	r.Queue, err = New(Config{
		Store: s, Dir: filepath.Join(path, "jobs"), Now: time.Now, Log: slog.New(slog.DiscardHandler), Slots: slots, Limits: l,
		Admit: func(context.Context) func(*store.Tx, Job) error {
			return func(*store.Tx, Job) error {
				r.mu.Lock()
				defer r.mu.Unlock()
				if r.refuse == nil {
					r.held++
				}
				return r.refuse
			}
		},
		Undo: func(Job) {
			r.mu.Lock()
			r.held--
			r.mu.Unlock()
		},
		Release: func(Job) {
			r.mu.Lock()
			r.held--
			r.mu.Unlock()
		},
		Execute: func(ctx context.Context, j Job, out, log io.Writer) (Result, error) {
			r.mu.Lock()
			r.runs[j.ID]++
			do := r.do
			r.mu.Unlock()
			return do(ctx, j, out, log)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if r.stop != nil {
			r.end()
		}
		r.closeStore()
	})
	r.closeStore = sync.OnceFunc(func() { s.Close() })
	return r
}

func (r *rig) start() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.stop = func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Error(err)
		}
	}
}

func (r *rig) end() {
	r.stop()
	r.stop = nil
}

// acts sets what jobs do from now on.
func (r *rig) acts(do func(ctx context.Context, j Job, out, log io.Writer) (Result, error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.do = do
}

func (r *rig) refuses(err error) {
	r.mu.Lock()
	r.refuse = err
	r.mu.Unlock()
	r.Kick()
}

// owner is a peer ID made of a name: an identity multihash.
func owner(name string) mesh.PeerID {
	return mesh.PeerID(append([]byte{0, byte(len(name))}, name...))
}

func (r *rig) job(who, name string) Job {
	r.n++
	return Job{
		ID: mesh.NewWorkloadID(sha256.Sum256(fmt.Appendf(nil, "%s %s %d", who, name, r.n))), Owner: owner(who),
		Spec: mesh.Spec{Name: name, Runtime: mesh.Wasm, Shape: mesh.Job, Digest: "sha256:" + strings.Repeat("0", 64)}.WithDefaults(),
	}
}

func (r *rig) trySubmit(j Job) (Job, error) {
	r.t.Helper()
	s, err := r.Submit(j)
	if err != nil {
		return Job{}, err
	}
	if err := r.store.Update(r.t.Context(), s.Commit); err != nil {
		return Job{}, err
	}
	s.After()
	return s.Job, nil
}

func (r *rig) submit(who, name string) mesh.WorkloadID {
	r.t.Helper()
	j, err := r.trySubmit(r.job(who, name))
	if err != nil {
		r.t.Fatal(err)
	}
	return j.ID
}

func (r *rig) view(id mesh.WorkloadID) (v View) {
	r.t.Helper()
	if err := r.store.View(func(tx *store.Tx) (err error) { v, err = r.Queue.View(tx, id); return err }); err != nil {
		r.t.Fatal(err)
	}
	return v
}

// until waits for a job to be as wanted.
func (r *rig) until(id mesh.WorkloadID, what string, ok func(View) bool) View {
	r.t.Helper()
	limit := time.NewTimer(30 * time.Second)
	defer limit.Stop()
	for {
		changed := r.Changed()
		v := r.view(id)
		if ok(v) {
			return v
		}
		select {
		case <-changed:
		case <-time.After(50 * time.Millisecond):
		case <-limit.C:
			r.t.Fatalf("job %s is never %s: %+v", id, what, v)
		}
	}
}

func (r *rig) done(id mesh.WorkloadID) View {
	r.t.Helper()
	return r.until(id, "done", func(v View) bool { return v.State == Done })
}

func (r *rig) output(id mesh.WorkloadID) (string, string) {
	r.t.Helper()
	o, err := r.Outputs(r.t.Context(), id, true)
	if err != nil {
		r.t.Fatal(err)
	}
	defer o.Close()
	out, err := io.ReadAll(o.Stdout)
	log, lerr := io.ReadAll(o.Stderr)
	if err := errors.Join(err, lerr); err != nil {
		r.t.Fatal(err)
	}
	return string(out), string(log)
}

// blocked makes jobs wait until they are let go or canceled.
func (r *rig) blocked() (let func()) {
	free := make(chan struct{})
	r.acts(func(ctx context.Context, j Job, out, _ io.Writer) (Result, error) {
		fmt.Fprintf(out, "begun %s\n", j.Spec.Name)
		select {
		case <-free:
			return Result{}, nil
		case <-ctx.Done():
			return Result{Exit: mesh.Exit{Code: exitKilled, Kind: mesh.Canceled, Reason: "stopped"}}, nil
		}
	})
	return sync.OnceFunc(func() { close(free) })
}

func TestAJobRunsAndItsResultIsKept(t *testing.T) {
	dir := t.TempDir()
	r := newRig(t, dir, 2, Limits{})
	big := strings.Repeat("0123456789", smallOutput/5)
	r.acts(func(_ context.Context, j Job, out, log io.Writer) (Result, error) {
		_, _ = io.WriteString(log, "a line\n")
		text := "small"
		if j.Spec.Name == "big" {
			text = big
		}
		_, err := io.WriteString(out, text)
		return Result{Exit: mesh.Exit{Code: 3, Fuel: 7}, Receipt: []byte("receipt"), Record: []byte("record")}, err
	})
	small, large := r.submit("alice", "small"), r.submit("alice", "big")
	if v := r.view(large); v.State != Queued || v.Ahead != 1 {
		t.Errorf("queued: %+v", v)
	}
	r.start()
	for range 2 { // and again after a restart
		for id, want := range map[mesh.WorkloadID]string{small: "small", large: big} {
			v := r.done(id)
			if v.Exit.Code != 3 || v.Exit.Fuel != 7 || string(v.Receipt) != "receipt" || v.Output.Size != int64(len(want)) || v.Log.Size != 7 || v.Attempts != 1 {
				t.Errorf("%+v", v)
			}
			if out, log := r.output(id); out != want || log != "a line\n" {
				t.Errorf("%d bytes of output, log %q", len(out), log)
			}
			o, err := r.Outputs(t.Context(), id, false)
			if err != nil || string(o.Record) != "record" {
				t.Errorf("record %q, %v", o.Record, err)
			}
			o.Close()
		}
		r.end()
		r.closeStore()
		r = newRig(t, dir, 2, Limits{})
		r.start()
	}
	if len(r.runs) != 0 {
		t.Errorf("finished jobs ran again: %v", r.runs)
	}
}

// One peer's thousand jobs do not delay another's one, whatever they do.
func TestFairness(t *testing.T) {
	r := newRig(t, t.TempDir(), 4, Limits{})
	let := r.blocked()
	defer let()
	var hers []mesh.WorkloadID
	for range 50 {
		hers = append(hers, r.submit("alice", "hers"))
	}
	r.start()
	running := func() (n int) {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.runs)
	}
	for i := range 2 { // half of the slots
		r.until(hers[i], "running", func(v View) bool { return v.State == Running })
	}
	for _, other := range []string{"bob", "carol", "dave", "erin", "frank"} { // more than there are slots
		r.until(r.submit(other, "his"), "running", func(v View) bool { return v.State == Running })
	}
	for end := time.Now().Add(30 * time.Second); running() < 7 && time.Now().Before(end); {
		time.Sleep(time.Millisecond) // begun on disk, and about to
	}
	if v := r.view(hers[2]); v.State != Queued || v.Ahead != 0 || running() != 7 {
		t.Errorf("alice's third: %s, %d ahead, %d run", v.State, v.Ahead, running())
	}
	let()
	for _, id := range hers {
		r.done(id)
	}
	r.end()
	if r.held != 0 {
		t.Errorf("%d are still held", r.held)
	}
}

func TestTurnsGoRound(t *testing.T) {
	owners := func() []mesh.PeerID { return []mesh.PeerID{"b", "a", "c"} }
	for last, want := range map[mesh.PeerID]string{"": "[a b c]", "a": "[b c a]", "b": "[c a b]", "c": "[a b c]", "bb": "[c a b]"} {
		var got []string
		for _, p := range turns(owners(), last) {
			got = append(got, string(p))
		}
		if fmt.Sprint(got) != want {
			t.Errorf("after %q: %v, want %s", last, got, want)
		}
	}
}

func TestQueueIsBounded(t *testing.T) {
	r := newRig(t, t.TempDir(), 1, Limits{Queued: 3, QueuedAll: 5})
	for range 3 {
		r.submit("alice", "a")
	}
	refused := func(who, rule string) {
		t.Helper()
		if _, err := r.trySubmit(r.job(who, "x")); mesh.KindOf(err) != mesh.Overloaded || mesh.AsError(err).Rule != rule || mesh.AsError(err).Hint == "" {
			t.Errorf("%s: got %v, want it refused by %s", who, err, rule)
		}
	}
	refused("alice", "jobs.queued")
	r.submit("bob", "b")
	r.submit("carol", "c")
	refused("bob", "jobs.queued-all")
	r.start()
	r.done(r.submitSoon("alice"))
}

// submitSoon submits as soon as there is room.
func (r *rig) submitSoon(who string) mesh.WorkloadID {
	r.t.Helper()
	j := r.job(who, "soon")
	for range 1000 {
		if got, err := r.trySubmit(j); err == nil {
			return got.ID
		}
		time.Sleep(10 * time.Millisecond)
	}
	r.t.Fatal("there is never room")
	return ""
}

func TestSameKeyIsTheSameJob(t *testing.T) {
	r := newRig(t, t.TempDir(), 1, Limits{})
	submit := func(who, key string) mesh.WorkloadID {
		t.Helper()
		j := r.job(who, "keyed")
		j.Key = key
		got, err := r.trySubmit(j)
		if err != nil {
			t.Fatal(err)
		}
		return got.ID
	}
	first := submit("alice", "cron/night/1")
	if again := submit("alice", "cron/night/1"); again != first {
		t.Errorf("the same key made %s, after %s", again, first)
	}
	if other := submit("bob", "cron/night/1"); other == first {
		t.Error("bob's key found alice's job")
	}
	if other := submit("alice", "cron/night/2"); other == first {
		t.Error("another key found the same job")
	}
	r.start()
	r.done(first)
	if again := submit("alice", "cron/night/1"); again != first {
		t.Error("the key is forgotten once the job is done")
	}
	bad := r.job("alice", "keyed")
	bad.Key = "a\nb"
	if _, err := r.Submit(bad); mesh.KindOf(err) != mesh.Invalid {
		t.Errorf("a key with a line break: %v", err)
	}
}

func TestCancel(t *testing.T) {
	r := newRig(t, t.TempDir(), 1, Limits{})
	defer r.blocked()()
	runs, waits := r.submit("alice", "runs"), r.submit("alice", "waits")
	r.start()
	r.until(runs, "running", func(v View) bool { return v.State == Running })
	cancel := func(id mesh.WorkloadID, mine func(Job) error) error {
		err := r.store.Update(t.Context(), func(tx *store.Tx) error { return r.Cancel(tx, id, mine) })
		r.Stop(id)
		return err
	}
	not := errors.New("not yours")
	if err := cancel(waits, func(Job) error { return not }); !errors.Is(err, not) || r.view(waits).State != Queued {
		t.Errorf("canceled for somebody else: %v", err)
	}
	for _, id := range []mesh.WorkloadID{waits, runs, runs} {
		if err := cancel(id, func(Job) error { return nil }); err != nil {
			t.Fatal(err)
		}
		if v := r.done(id); v.Exit.Kind != mesh.Canceled || !v.Canceled {
			t.Errorf("%+v", v)
		}
	}
	if n := r.runs[waits]; n != 0 {
		t.Errorf("what was canceled while it waited ran %d times", n)
	}
	if out, _ := r.output(runs); out != "begun runs\n" {
		t.Errorf("what it wrote before is lost: %q", out)
	}
}

func TestWhoMustWaitAndWhoIsRefused(t *testing.T) {
	r := newRig(t, t.TempDir(), 1, Limits{})
	r.refuses(mesh.Errorf(mesh.Quota, "memory").WithRule("grant.memory"))
	r.start()
	id := r.submit("alice", "patient")
	r.refuses(mesh.Errorf(mesh.Denied, "paused").WithRule("host.paused"))
	if v := r.view(id); v.State != Queued {
		t.Errorf("%+v", v)
	}
	r.refuses(nil)
	r.done(id)
	r.refuses(mesh.Errorf(mesh.Denied, "you may not deploy here").WithRule("grant.deploy"))
	if v := r.done(r.submit("alice", "refused")); v.Exit.Kind != mesh.Denied || v.Exit.Reason == "" || v.Attempts != 0 {
		t.Errorf("%+v", v)
	}
}

func TestTooMuchOutputEndsTheJob(t *testing.T) {
	r := newRig(t, t.TempDir(), 1, Limits{Output: 100 << 10})
	r.acts(func(ctx context.Context, _ Job, out, _ io.Writer) (Result, error) {
		for ctx.Err() == nil {
			if _, err := out.Write(make([]byte, 1000)); err != nil {
				<-ctx.Done() // its runtime hears of it
			}
		}
		return Result{Exit: mesh.Exit{Code: exitKilled, Kind: mesh.Canceled}}, nil
	})
	r.start()
	v := r.done(r.submit("alice", "flood"))
	if v.Exit.Kind != mesh.TooLarge || v.Output.Size > 100<<10 || v.Output.Size < 90<<10 {
		t.Errorf("%+v", v)
	}
}

// What is kept of one peer is bounded in number and size, the oldest goes first, and
// that it went is known.
func TestResultsAreBounded(t *testing.T) {
	dir := t.TempDir()
	r := newRig(t, dir, 1, Limits{Records: 6, Results: 3, ResultBytes: 200 << 10})
	size := 40 << 10
	r.acts(func(_ context.Context, _ Job, out, _ io.Writer) (Result, error) {
		_, err := out.Write(make([]byte, size))
		return Result{}, err
	})
	r.start()
	other := r.submit("bob", "his")
	r.done(other)
	var ids []mesh.WorkloadID
	run := func() {
		id := r.submit("alice", "hers")
		r.done(id)
		ids = append(ids, id)
	}
	kept := func() (with, known int) {
		for _, id := range ids {
			err := r.store.View(func(tx *store.Tx) error { _, err := Get(tx, id); return err })
			if err != nil {
				continue
			}
			known++
			if o, err := r.Outputs(t.Context(), id, false); err == nil {
				with++
				o.Close()
			} else if mesh.KindOf(err) != mesh.NotFound || !r.view(id).Dropped {
				t.Errorf("%v: %+v", err, r.view(id))
			}
		}
		return with, known
	}
	for range 5 {
		run()
	}
	if with, known := kept(); with != 3 || known != 5 {
		t.Errorf("of 5 results %d are kept and %d known", with, known)
	}
	size = 90 << 10
	run()
	run()
	run()
	if with, known := kept(); with != 2 || known != 6 { // 2 × 90 KiB
		t.Errorf("of 8 results %d are kept and %d known", with, known)
	}
	if r.view(ids[len(ids)-1]).Dropped {
		t.Error("the newest went")
	}
	if r.view(other).Dropped {
		t.Error("another peer's went")
	}
	r.end()
	if err := r.tidy(); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(filepath.Join(dir, "jobs"))
	if err != nil || len(files) != 3 {
		t.Errorf("%d files for 3 results (%v)", len(files), err)
	}
}

// peerd stops in the middle: what ran runs again, what was done does not, and there
// is one result of each.
func TestNothingIsLostOrDoneTwice(t *testing.T) {
	dir := t.TempDir()
	r := newRig(t, dir, 4, Limits{})
	let := r.blocked()
	cut := r.submit("alice", "cut")
	r.start()
	r.until(cut, "running", func(v View) bool { return v.State == Running })
	waits := r.submit("alice", "waits")
	r.end()
	let()
	if v := r.view(cut); v.State != Running {
		t.Fatalf("stopping decided what came of a job: %+v", v)
	}
	r.closeStore()
	r = newRig(t, dir, 4, Limits{})
	r.start()
	if v := r.done(cut); v.Attempts != 2 || v.Exit.Kind != 0 {
		t.Errorf("%+v", v)
	}
	if out, _ := r.output(cut); out != "ran cut" {
		t.Errorf("of two runs there is %q", out)
	}
	r.done(waits)
}

// What was asked to end before the crash does not run again, and what crashes peerd
// each time is given up.
func TestAfterACrash(t *testing.T) {
	dir := t.TempDir()
	r := newRig(t, dir, 4, Limits{})
	gone, poison := r.job("alice", "gone"), r.job("alice", "poison")
	for _, j := range []*Job{&gone, &poison} {
		if _, err := r.trySubmit(*j); err != nil {
			t.Fatal(err)
		}
		err := r.store.Update(t.Context(), func(tx *store.Tx) error {
			got, err := Get(tx, j.ID)
			if err != nil {
				return err
			}
			if got.Spec.Name == "poison" {
				got.Attempts = maxAttempts - 1
			}
			got, err = begin(tx, time.Now(), got)
			if err != nil || got.Spec.Name == "poison" {
				return err
			}
			return r.Cancel(tx, got.ID, func(Job) error { return nil })
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(r.outputFile(gone.ID, partOutput), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.start()
	if v := r.done(gone.ID); v.Exit.Kind != mesh.Canceled {
		t.Errorf("%+v", v)
	}
	if v := r.done(poison.ID); v.Exit.Kind != mesh.Interrupted {
		t.Errorf("%+v", v)
	}
	if len(r.runs) != 0 {
		t.Errorf("they ran: %v", r.runs)
	}
	if _, err := os.Stat(r.outputFile(gone.ID, partOutput)); err == nil {
		t.Error("half an output was left")
	}
}

// A run that comes back late, after another one was recorded, changes nothing.
func TestOneResultIsRecorded(t *testing.T) {
	r := newRig(t, t.TempDir(), 1, Limits{})
	r.start()
	id := r.submit("alice", "once")
	v := r.done(id)
	late := &run{job: v.Job, spools: map[part]*spool{partOutput: newSpool("", 10, nil), partLog: newSpool("", 10, nil)}}
	if err := r.record(late, Result{Exit: mesh.Exit{Code: 9}}); mesh.KindOf(err) != mesh.Conflict {
		t.Errorf("got %v", err)
	}
	if v := r.view(id); v.Exit.Code != 0 {
		t.Errorf("%+v", v)
	}
}

// The disk is full when a run ends: its result is written down once there is room.
func TestResultOnAFullDisk(t *testing.T) {
	r := newRig(t, t.TempDir(), 1, Limits{})
	var runs, tries atomic.Int32
	r.acts(func(context.Context, Job, io.Writer, io.Writer) (Result, error) {
		runs.Add(1)
		return Result{Exit: mesh.Exit{Code: 7}, Keep: func(*store.Tx) error {
			if tries.Add(1) == 1 {
				return mesh.Errorf(mesh.Overloaded, "no room").WithRule(mesh.RuleDisk)
			}
			return nil
		}}, nil
	})
	r.start()
	if v := r.done(r.submit("alice", "a")); v.Exit.Code != 7 || runs.Load() != 1 {
		t.Errorf("it ran %d times, and ended with %+v", runs.Load(), v.Exit)
	}
}

// A run that its machine cut short does not count: the job waits and runs again.
func TestRunThatDoesNotCount(t *testing.T) {
	r := newRig(t, t.TempDir(), 1, Limits{})
	tries := 0
	r.acts(func(_ context.Context, _ Job, out, _ io.Writer) (Result, error) {
		tries++
		fmt.Fprintf(out, "try %d", tries)
		return Result{Again: tries < maxAttempts+3}, nil
	})
	r.start()
	id := r.submit("alice", "held")
	if v := r.done(id); v.Attempts != 1 || v.Exit.Kind != 0 {
		t.Errorf("%+v", v)
	}
	if out, _ := r.output(id); out != fmt.Sprintf("try %d", maxAttempts+3) {
		t.Errorf("%q", out)
	}
}

func TestFollowingTheOutput(t *testing.T) {
	r := newRig(t, t.TempDir(), 1, Limits{})
	next := make(chan string)
	r.acts(func(_ context.Context, _ Job, out, _ io.Writer) (Result, error) {
		for s := range next {
			if _, err := io.WriteString(out, s); err != nil {
				return Result{}, err
			}
		}
		return Result{}, nil
	})
	id := r.submit("alice", "talks")
	type opened struct {
		o   Outputs
		err error
	}
	open := make(chan opened, 1)
	go func() { // before it has begun
		o, err := r.Outputs(t.Context(), id, true)
		open <- opened{o, err}
	}()
	r.start()
	got := <-open
	if got.err != nil {
		t.Fatal(got.err)
	}
	defer got.o.Close()
	buf := make([]byte, 100)
	for _, s := range []string{"one", strings.Repeat("x", smallOutput), "three"} {
		next <- s
		var all []byte
		for len(all) < len(s) {
			n, err := got.o.Stdout.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, buf[:n]...)
		}
		if !bytes.Equal(all, []byte(s)) {
			t.Fatalf("got %d bytes", len(all))
		}
	}
	close(next)
	if n, err := got.o.Stdout.Read(buf); n != 0 || err != io.EOF {
		t.Errorf("after its end: %d, %v", n, err)
	}
	r.done(id)
}

func TestCancelAll(t *testing.T) {
	r := newRig(t, t.TempDir(), 2, Limits{})
	defer r.blocked()()
	var hers []mesh.WorkloadID
	for range 5 {
		hers = append(hers, r.submit("alice", "hers"))
	}
	his := r.submit("bob", "his")
	r.start()
	r.until(hers[0], "running", func(v View) bool { return v.State == Running })
	noted := 0
	ids, err := r.CancelAll(t.Context(), func(j Job) bool { return j.Owner == owner("alice") }, func(_ *store.Tx, j Job) error { noted++; return nil })
	if err != nil || len(ids) != 5 || noted != 5 {
		t.Fatalf("%v, %v", ids, err)
	}
	for _, id := range hers {
		if v := r.done(id); v.Exit.Kind != mesh.Canceled {
			t.Errorf("%+v", v)
		}
	}
	r.until(his, "running", func(v View) bool { return v.State == Running })
}
