package wasm

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
)

// runs reports whether the process is there and not just waiting to be buried.
func runs(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return syscall.Kill(pid, 0) == nil && !os.IsNotExist(err)
	}
	return !strings.Contains(string(b), ") Z ")
}

func TestGuestsHearOfTheirWorkersEnd(t *testing.T) {
	r := newRig(t, Limits{Unresponsive: 3 * time.Second}) // one that waits for a processor is not to pass for hanging
	module := r.shelf.bytes(sayModule(plain + "hello"))
	for _, tc := range []struct {
		name   string
		signal syscall.Signal
		want   string
	}{
		{"killed", syscall.SIGKILL, "signal: killed"},
		{"hanging", syscall.SIGSTOP, "did not answer for 3s"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := r.workload(module, mesh.HTTP, nil)
			task := r.start(w)
			pid := task.p.cmd.Process.Pid
			if err := syscall.Kill(pid, tc.signal); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			exit, err := task.Wait(ctx)
			if err != nil || exit.Kind != mesh.Unavailable || !strings.Contains(exit.Reason, tc.want) {
				t.Errorf("got %+v, %v; want %q", exit, err, tc.want)
			}
			if log := readLog(t, r, w.ID, driver.LogOptions{}); !strings.Contains(log, tc.want) {
				t.Errorf("the log says %q", log)
			}
			again, err := r.Start(ctx, w)
			if err != nil {
				t.Fatal(err)
			}
			if _, body := get(t, again.(*runningTask).client(), "http://app/"); body != "hello" {
				t.Errorf("after that: %q", body)
			}
		})
	}
}

// runningTask is task where a variable has that name.
type runningTask = task

func TestIdleWorkersEnd(t *testing.T) {
	r := newRig(t, Limits{Idle: 50 * time.Millisecond})
	w := r.workload(r.shelf.bytes(sayModule("hello")), mesh.Job, nil)
	if out, _ := r.output(w); out != "hello" {
		t.Fatalf("got %q", out)
	}
	r.mu.Lock()
	o := r.owners[w.Owner]
	r.mu.Unlock()
	proc := func() *process {
		o.mu.Lock()
		defer o.mu.Unlock()
		return o.proc
	}
	eventually(t, 30*time.Second, "the worker ends", func() bool { return proc() == nil })
	if out, _ := r.output(w); out != "hello" {
		t.Errorf("after that: %q", out)
	}
}

func TestAWorkerForEachOwner(t *testing.T) {
	r := newRig(t, Limits{})
	digest := r.shelf.bytes(sayModule(plain + "hello"))
	a := r.start(r.workload(digest, mesh.HTTP, nil))
	other := r.workload(digest, mesh.HTTP, nil)
	other.Owner = "other"
	b := r.start(other)
	if a.p == b.p {
		t.Fatal("two owners share a worker")
	}
	if err := syscall.Kill(a.p.cmd.Process.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, body := get(t, b.client(), "http://app/"); body != "hello" {
		t.Errorf("the other owner's guest: %q", body)
	}
}

func TestCompilerHasALimit(t *testing.T) {
	r := newGoRig(t, Limits{Compile: time.Millisecond})
	w := r.workload(r.shelf.probe(), mesh.Job, nil)
	w.Owner = "an owner without a cache"
	if _, err := r.Prepare(t.Context(), w, nil); mesh.KindOf(err) != mesh.TooLarge {
		t.Errorf("got %v, want TooLarge", err)
	}
}

const peerdArg = "peerd"

// peerd is a process with a driver whose guest never ends, to be killed.
func peerd(dir, module string) {
	d, err := New(Config{
		Dir: dir, Module: func(string) (string, error) { return module, nil },
		Command: func() *exec.Cmd { return exec.Command(os.Args[0], workerArg) },
		Log:     slog.New(slog.DiscardHandler),
	})
	if err != nil {
		panic(err)
	}
	b, err := os.ReadFile(module)
	if err != nil {
		panic(err)
	}
	w := mesh.Workload{ID: "aaaaaaaaaaaaaaaa", Owner: "owner", Spec: mesh.Spec{
		Name: "loop", Runtime: mesh.Wasm, Shape: mesh.Job, Digest: digestOf(b), Timeout: time.Hour, Resources: mesh.Resources{Fuel: 1 << 60},
	}.WithDefaults()}
	task, err := d.Start(context.Background(), w)
	if err != nil {
		panic(err)
	}
	fmt.Println(task.(*runningTask).p.cmd.Process.Pid)
	_, _ = task.Wait(context.Background())
	os.Exit(1)
}

func TestWorkersDieWithPeerd(t *testing.T) {
	dir := t.TempDir()
	s := &shelf{t: t, m: map[string]string{}}
	module, err := s.path(s.bytes(spinModule("")))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], peerdArg, dir+"/wasm", module)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || !runs(pid) {
		t.Fatalf("no worker %q: %v", line, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	eventually(t, 30*time.Second, "the worker dies", func() bool { return !runs(pid) })
	d, err := New(Config{
		Dir: dir + "/wasm", Module: s.path, Log: slog.New(slog.DiscardHandler),
		Command: func() *exec.Cmd { return exec.Command(os.Args[0], workerArg) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if tasks, err := d.Adopt(t.Context()); err != nil || len(tasks) > 0 {
		t.Errorf("adopted %d, %v", len(tasks), err)
	}
}

func TestLogIsCapped(t *testing.T) {
	r := newRig(t, Limits{Log: 64 << 10, LogRate: 1 << 20})
	w := r.workload(r.shelf.bytes(floodModule(2, strings.Repeat("x", 99)+"\n")), mesh.Job, func(s *mesh.Spec) {
		s.Timeout = 3 * time.Second
		s.Resources.Fuel = 1 << 60
	})
	task := r.start(w)
	exit, err := task.Wait(t.Context())
	if err != nil || exit.Kind != mesh.Timeout {
		t.Fatalf("got %+v, %v", exit, err)
	}
	log := readLog(t, r, w.ID, driver.LogOptions{})
	if len(log) > 128<<10 || len(log) < 32<<10 {
		t.Errorf("%d bytes are kept", len(log))
	}
	if tail := readLog(t, r, w.ID, driver.LogOptions{Tail: 1}); !strings.Contains(tail, "deadline passed") {
		t.Errorf("the last line is %q", tail)
	}
}

func TestPace(t *testing.T) {
	now := time.Unix(0, 0)
	p := &pace{milli: 250, now: func() time.Time { return now }, last: now}
	if wait := p.spend(paceBurst); wait != 0 {
		t.Errorf("within the burst: wait %s", wait)
	}
	if wait := p.spend(10 * time.Millisecond); wait != 40*time.Millisecond {
		t.Errorf("10 ms over at a quarter: wait %s, want 40ms", wait)
	}
	now = now.Add(40 * time.Millisecond)
	if wait := p.spend(0); wait != 0 {
		t.Errorf("after the wait: wait %s", wait)
	}
	if wait := p.spend(time.Hour); wait != 50*time.Millisecond {
		t.Errorf("far over: wait %s, want no more than 50ms at a time", wait)
	}
	if wait := (*pace)(nil).spend(time.Hour); wait != 0 {
		t.Errorf("without a share: wait %s", wait)
	}
}

func TestFrames(t *testing.T) {
	ours, theirs, err := pair()
	if err != nil {
		t.Fatal(err)
	}
	c, err := unixConn(theirs)
	if err != nil {
		t.Fatal(err)
	}
	a, b := &link{c: ours}, &link{c: c}
	defer ours.Close()
	defer c.Close()
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, want := range []frame{
		{kind: askPing, call: 7},
		{kind: askConn, call: 8, payload: []byte("x"), files: []*os.File{f}},
		{kind: replyOK, call: 9, payload: bytes.Repeat([]byte("y"), maxPayload)},
		{kind: askJob, call: 10, payload: bytes.Repeat([]byte("z"), 10000), files: []*os.File{f, f, f, f}},
	} {
		sent := make(chan error, 1)
		go func() { sent <- a.write(want) }()
		got, err := b.read()
		if err != nil {
			t.Fatal(err)
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		if got.kind != want.kind || got.call != want.call || !bytes.Equal(got.payload, want.payload) || len(got.files) != len(want.files) {
			t.Errorf("got %d %d %d bytes %d files", got.kind, got.call, len(got.payload), len(got.files))
		}
		closeAll(got.files)
	}
	if err := a.write(frame{kind: askPing, payload: make([]byte, maxPayload+1)}); err == nil {
		t.Error("a frame over the limit was sent")
	}
	if err := a.write(frame{kind: askPing, files: []*os.File{f, f, f, f, f}}); err == nil {
		t.Error("more files than allowed were sent")
	}
}

// Whatever a worker sends, peerd takes whole frames within their limits or gives up.
func FuzzFrame(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, byte(askPing), 0, 0, 0, 1, 'x'})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, byte(replyOK), 0, 0, 0, 1})
	f.Add([]byte{0, 0, 0, 0, 77, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 32<<10 {
			return // more than a socket holds
		}
		ours, theirs, err := pair()
		if err != nil {
			t.Fatal(err)
		}
		defer ours.Close()
		if _, err := theirs.Write(in); err != nil {
			t.Fatal(err)
		}
		theirs.Close()
		l := &link{c: ours}
		var again []byte
		for {
			fr, err := l.read()
			if err != nil {
				break
			}
			if again, err = appendFrame(again, fr); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.HasPrefix(in, again) {
			t.Fatalf("frames read differ from what was sent")
		}
	})
}

func TestJobsLeaveRoomForQuestions(t *testing.T) {
	r := newRig(t, Limits{})
	w := r.workload(r.shelf.bytes(spinModule("")), mesh.HTTP, nil)
	task := r.start(w)
	task.p.mu.Lock()
	for i := range uint32(maxJobs) {
		task.p.pending[1<<31+i] = make(chan frame, 1)
	}
	task.p.mu.Unlock()
	if _, err := task.p.ask(askJob, struct{}{}); mesh.KindOf(err) != mesh.Overloaded {
		t.Errorf("one job too many: %v", err)
	}
	if _, err := task.Stats(t.Context()); err != nil {
		t.Errorf("a question: %v", err)
	}
}

func TestReasonsAreOneLine(t *testing.T) {
	got := sane(mesh.Exit{Reason: "a\nb\x1b[31m" + strings.Repeat("c", 1000)}).Reason
	if strings.ContainsAny(got, "\n\x1b") || len(got) > 600 {
		t.Errorf("got %q", got)
	}
}

// Two peerds on one machine may run guests of the same owner.
func TestDriversDoNotShareGroups(t *testing.T) {
	a, b := &Driver{cfg: Config{Dir: "/a"}}, &Driver{cfg: Config{Dir: "/b"}}
	if a.groupName("owner") == b.groupName("owner") {
		t.Error("one name for two groups")
	}
}

// All of a guest's memory in one call to a log that is slow must not outlast its time.
func TestOneGreatWriteEndsInTime(t *testing.T) {
	r := newRig(t, Limits{LogRate: 64 << 10})
	size := 16 << 20
	w := r.workload(r.shelf.bytes(assemble("", i32(size/wasmPage), grow, drop, write(2, wasmPage, i32(size)))), mesh.Job, func(s *mesh.Spec) {
		s.Timeout = 500 * time.Millisecond
	})
	began := time.Now()
	exit, err := r.start(w).Wait(t.Context())
	if err != nil || exit.Kind != mesh.Timeout {
		t.Errorf("got %+v, %v", exit, err)
	}
	if took := time.Since(began); took > time.Minute { // the log takes four
		t.Errorf("it took %s", took)
	}
}
