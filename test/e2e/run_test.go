package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"peercompute/test/internal/testmesh"
)

// A peer that has a module is not asked whether it has it, and gets it again when it
// has lost it.
func TestModuleIsSentAgain(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice, bob := m.Peer("alice"), m.Peer("bob")
	m.Lend(bob, alice)
	tiny := testmesh.Tiny(t, "hello")
	lose := func() {
		files, err := filepath.Glob(filepath.Join(bob.Home, "modules", "*.wasm"))
		if err != nil || len(files) != 1 {
			t.Fatalf("bob has the modules %v, %v", files, err)
		}
		if err := os.Remove(files[0]); err != nil {
			t.Fatal(err)
		}
	}
	for i, args := range [][]string{{"run"}, {"run"}, {"run", "-d"}, {"deploy", "--name", "again"}} {
		if i > 0 {
			lose()
		}
		alice.Must(append(args, tiny, "--peer", "bob")...)
	}
}

// A job on another peer is like a program here: stdin goes in, stdout and stderr
// come out, its exit status is peerctl's.
func TestRunOnAPeer(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice, bob := m.Peer("alice"), m.Peer("bob")
	m.Lend(bob, alice)
	count := testmesh.Wasm(t, "wordcount")
	text := strings.Repeat("three short words\n", 50_000)
	r := alice.CtlIn([]byte(text), "run", "--peer", "bob", count)
	if r.Code != 0 || r.Stdout != "50000 lines, 150000 words, 900000 bytes\n" {
		t.Fatalf("status %d, stdout %q, stderr %q", r.Code, r.Stdout, r.Stderr)
	}
	if r := alice.CtlIn([]byte("x"), "run", "--peer", "bob", count, "--", "-exit", "7"); r.Code != 7 {
		t.Errorf("status %d, want the job's own 7\n%s", r.Code, r.Stderr)
	}
	if r := alice.CtlIn(nil, "run", "--peer", "bob", count, "--", "-nonsense"); r.Code != 2 || !strings.Contains(r.Stderr, "-nonsense") {
		t.Errorf("status %d, stderr %q", r.Code, r.Stderr)
	}
	began := time.Now()
	if r := alice.CtlIn(nil, "run", "--peer", "bob", "--timeout", "2s", count, "--", "-spin"); r.Code != 124 {
		t.Errorf("a job that never ends: status %d, want 124\n%s", r.Code, r.Stderr)
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("a limit of 2s took %s", took)
	}
	if list := ps(t, bob); len(list) != 0 {
		t.Errorf("jobs in the foreground left %+v", list)
	}
	// And here.
	if r := bob.CtlIn([]byte("one two\n"), "run", "--peer", "self", count); r.Code != 0 || r.Stdout != "1 lines, 2 words, 8 bytes\n" {
		t.Errorf("here: status %d, stdout %q, stderr %q", r.Code, r.Stdout, r.Stderr)
	}
	refused(t, bob.Ctl("run", "--peer", "alice", count), "alice refused", "[grant.deploy]")
}

// Followed logs come as they are written and end with the workload.
func TestFollowLogs(t *testing.T) {
	t.Parallel()
	image := container(t)
	m := testmesh.New(t)
	alice, bob := m.Peer("alice"), m.Peer("bob")
	m.Lend(bob, alice)
	deploy(t, alice, image, "--peer", "bob", "--name", "box", "--port", "8080", "--", "--name", "box")
	type ended struct{ r testmesh.Result }
	done := make(chan ended, 1)
	go func() { done <- ended{alice.Ctl("logs", "-f", "box")} }()
	select {
	case e := <-done:
		t.Fatalf("logs -f ended by itself: %+v", e.r)
	case <-time.After(500 * time.Millisecond):
	}
	alice.Must("stop", "box")
	select {
	case e := <-done:
		if !strings.Contains(e.r.Stdout, "listening on") || !strings.HasSuffix(e.r.Stdout, "bye\n") {
			t.Errorf("followed: %q %q", e.r.Stdout, e.r.Stderr)
		}
	case <-time.After(time.Minute):
		t.Error("logs -f does not end with the workload")
	}
	// It writes to stderr alone; each line has its time.
	if log := alice.Must("logs", "box", "--stream", "stdout"); log != "" {
		t.Errorf("stdout alone: %q", log)
	}
	lines := strings.Split(strings.TrimSpace(alice.Must("logs", "box", "--stream", "stderr", "-o", "json")), "\n")
	type line struct {
		Time         time.Time
		Stream, Text string
	}
	last := parse[line](t, lines[len(lines)-1])
	if last.Stream != "stderr" || last.Text != "bye" || time.Since(last.Time) > time.Minute || len(lines) < 2 {
		t.Errorf("as JSON: %q", lines)
	}
	if log := alice.Must("logs", "box", "--since", last.Time.Format(time.RFC3339Nano)); log != "bye\n" {
		t.Errorf("since the last line: %q", log)
	}
}
