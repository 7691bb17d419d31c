package e2e

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"peercompute/test/internal/testmesh"
)

// job is what `job ls -o json` promises to outside programs.
type job struct {
	ID         string
	Name       string
	Peer       string
	Owner      string
	State      string
	Attempts   int
	OutputSize int64 `json:"output_size"`
	Exit       *struct {
		Code int
		Kind int
		Fuel uint64
	}
}

func jobsOf(t *testing.T, n *testmesh.Node, args ...string) map[string]job {
	t.Helper()
	out := map[string]job{}
	for _, j := range parse[[]job](t, n.Must(append([]string{"job", "ls", "-o", "json"}, args...)...)) {
		if _, twice := out[j.ID]; twice {
			t.Errorf("job %s is listed twice", j.ID)
		}
		out[j.ID] = j
	}
	return out
}

func submit(t *testing.T, n *testmesh.Node, stdin string, args ...string) string {
	t.Helper()
	r := n.CtlIn([]byte(stdin), append([]string{"job", "submit"}, args...)...)
	if r.Code != 0 {
		t.Fatalf("submit %v: status %d: %s", args, r.Code, r.Stderr)
	}
	return strings.TrimSpace(r.Stdout)
}

// A job is queued, runs with nobody waiting, and its result and receipt are fetched
// later.
func TestQueuedJob(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice, bob, carol := m.Peer("alice"), m.Peer("bob"), m.Peer("carol")
	m.Lend(bob, alice)
	m.Lend(bob, carol)
	count := testmesh.Wasm(t, "wordcount")
	text := strings.Repeat("three short words\n", 50_000)
	id := submit(t, alice, text, "--peer", "bob", count, "--", "-exit", "7")
	if r := alice.Ctl("job", "wait", id); r.Code != 7 || !strings.Contains(r.Stdout, "exit 7, fuel ") {
		t.Errorf("wait: status %d, %s%s", r.Code, r.Stdout, r.Stderr)
	}
	r := alice.Ctl("job", "result", id[:8])
	if r.Code != 7 || r.Stdout != "50000 lines, 150000 words, 900000 bytes\n" {
		t.Errorf("result: status %d, stdout %q, stderr %q", r.Code, r.Stdout, r.Stderr)
	}
	if logs := alice.Must("job", "logs", id); logs != r.Stdout {
		t.Errorf("logs: %q", logs)
	}
	hers, his := jobsOf(t, alice), jobsOf(t, bob)
	if j := hers[id]; len(hers) != 1 || j.Peer != "bob" || j.Owner != "self" || j.State != "done" || j.Exit.Code != 7 || j.Attempts != 1 {
		t.Errorf("alice lists %+v", hers)
	}
	if j := his[id]; len(his) != 1 || j.Peer != "self" || j.Owner != "alice" || j.Exit.Fuel != hers[id].Exit.Fuel {
		t.Errorf("bob lists %+v", his)
	}
	theirs, ours := receipts(t, alice), receipts(t, bob)
	if len(theirs) != 1 || len(ours) != 1 || theirs[0].ID != id || ours[0].ID != id || theirs[0].Flaw != "" || theirs[0].Input != digest([]byte(text)) || theirs[0].Output != digest([]byte(r.Stdout)) {
		t.Errorf("alice: %+v\nbob: %+v", theirs, ours)
	}
	// Nobody else sees it, or can end it; and what never was is not there.
	refused(t, carol.Ctl("job", "logs", id), "no job")
	refused(t, alice.Ctl("job", "result", "zzzz"), `no job "zzzz"`)

	// Here, without any peer.
	own := submit(t, bob, "one two\n", "--peer", "self", count)
	if r := bob.Ctl("job", "wait", own); r.Code != 0 {
		t.Errorf("here: %+v", r)
	}
	if out := bob.Must("job", "result", own); out != "1 lines, 2 words, 8 bytes\n" {
		t.Errorf("here: %q", out)
	}
	refused(t, bob.Ctl("job", "submit", "--peer", "alice", count), "alice refused", "[grant.deploy]")
}

// What runs can be followed and ended; a peer that is removed leaves nothing in the
// queue.
func TestCanceledJobs(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice, bob := m.Peer("alice"), m.Peer("bob")
	m.Lend(bob, alice)
	spin := testmesh.Tiny(t, "")
	long := []string{"--peer", "bob", "--fuel", "1000T", "--timeout", "10m", spin}
	bob.Must("peers", "allow", "alice", "--allow", "deploy,observe") // and no more fuel than by default
	refused(t, alice.Ctl(append([]string{"job", "submit"}, long...)...), "[grant.fuel]")
	long[3] = "1T"
	first := submit(t, alice, "", long...)
	within(t, 20*time.Second, "it to run", func() bool { return jobsOf(t, alice)[first].State == "running" })
	refused(t, alice.Ctl("job", "result", first), "is running", "peerctl job wait")
	followed := make(chan testmesh.Result, 1)
	go func() { followed <- alice.Ctl("job", "logs", "-f", first) }()
	alice.Must("job", "cancel", first)
	if r := alice.Ctl("job", "wait", first); r.Code != 130 || !strings.Contains(r.Stdout, "canceled") {
		t.Errorf("wait: %+v", r)
	}
	select {
	case r := <-followed:
		if r.Code != 0 {
			t.Errorf("logs -f: %+v", r)
		}
	case <-time.After(20 * time.Second):
		t.Error("logs -f does not end with the job")
	}

	var ids []string
	for range 12 { // more than run at once
		ids = append(ids, submit(t, alice, "", long...))
	}
	within(t, 20*time.Second, "some to run", func() bool { return jobsOf(t, bob)[ids[0]].State == "running" })
	bob.Must("peers", "remove", "alice")
	within(t, 20*time.Second, "all to end", func() bool {
		for _, j := range jobsOf(t, bob) {
			if j.State != "done" {
				return false
			}
		}
		return true
	})
	if r := alice.Ctl("job", "ls"); r.Code != 0 || !strings.Contains(r.Stdout, "unknown") {
		t.Errorf("alice: %+v", r)
	}
}

// One peer's many jobs do not delay another's one.
func TestQueueIsFair(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice, bob, carol := m.Peer("alice"), m.Peer("bob"), m.Peer("carol")
	m.Lend(bob, alice)
	m.Lend(bob, carol)
	spin, tiny := testmesh.Tiny(t, ""), testmesh.Tiny(t, "hello")
	for range 20 {
		submit(t, alice, "", "--peer", "bob", "--fuel", "1T", "--timeout", "10m", "--cpus", "0.05", spin)
	}
	within(t, 20*time.Second, "alice's to run", func() bool {
		running := 0
		for _, j := range jobsOf(t, bob) {
			if j.State == "running" {
				running++
			}
		}
		return running > 0
	})
	id := submit(t, carol, "", "--peer", "bob", tiny)
	if r := carol.Ctl("job", "wait", id); r.Code != 0 {
		t.Fatalf("carol's job: %+v", r)
	}
	queued := 0
	for _, j := range jobsOf(t, bob) {
		if j.State == "queued" {
			queued++
		}
	}
	if queued < 10 {
		t.Errorf("only %d of alice's 20 still wait; this test shows nothing", queued)
	}
	alice.Must("job", "cancel", firstJob(t, alice))
	bob.Must("peers", "remove", "alice")
}

func firstJob(t *testing.T, n *testmesh.Node) string {
	t.Helper()
	for id := range jobsOf(t, n) {
		return id
	}
	t.Fatal("no jobs")
	return ""
}

// Bob is killed again and again while his queue runs and is added to. What he had
// accepted is done in the end, each with one result and one receipt.
func TestKilledWhileTheQueueRuns(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice, bob := m.Peer("alice"), m.Peer("bob")
	m.Lend(bob, alice)
	count := testmesh.Wasm(t, "wordcount")
	submit(t, alice, "x\n", "--peer", "bob", count) // the module is there and compiled
	var mu sync.Mutex
	accepted := map[string]string{}                                         // job → its input
	for round := 0; round < 4 || len(accepted) < 5 && round < 20; round++ { // how many get through is a matter of pace
		var wg sync.WaitGroup
		for i := range 4 {
			text := strings.Repeat(fmt.Sprintf("round %d word %d\n", round, i), 200*(i+1))
			wg.Go(func() {
				for range 3 {
					r := alice.CtlIn([]byte(text), "job", "submit", "--peer", "bob", count)
					if r.Code == 0 {
						mu.Lock()
						accepted[strings.TrimSpace(r.Stdout)] = text
						mu.Unlock()
					}
				}
			})
		}
		time.Sleep(time.Duration(100+150*round) * time.Millisecond)
		bob.Kill()
		bob.Start()
		wg.Wait()
	}
	if len(accepted) < 5 {
		t.Fatalf("only %d jobs were accepted", len(accepted))
	}
	again := 0
	for id, text := range accepted {
		if r := alice.Ctl("job", "wait", id); r.Code != 0 {
			t.Fatalf("job %s: status %d: %s%s", id, r.Code, r.Stdout, r.Stderr)
		}
		lines := bytes.Count([]byte(text), []byte("\n"))
		if want, got := fmt.Sprintf("%d lines, %d words, %d bytes\n", lines, 4*lines, len(text)), alice.Must("job", "result", id); got != want {
			t.Errorf("job %s: %q, want %q", id, got, want)
		}
	}
	within(t, time.Minute, "the rest", func() bool {
		for _, j := range jobsOf(t, bob) {
			if j.State != "done" {
				return false
			}
		}
		return true
	})
	seen := map[string]int{}
	for _, r := range receipts(t, bob) {
		seen[r.ID]++
	}
	there := jobsOf(t, bob)
	for id, j := range there {
		if seen[id] != 1 {
			t.Errorf("job %s has %d receipts", id, seen[id])
		}
		if j.Attempts > 1 {
			again++
		}
	}
	for id := range accepted {
		if _, ok := there[id]; !ok {
			t.Errorf("job %s was accepted and is lost", id)
		}
	}
	if len(seen) != len(there) {
		t.Errorf("%d jobs, %d receipts", len(there), len(seen))
	}
	t.Logf("%d accepted, %d there, %d ran again after a crash", len(accepted), len(there), again)
}
