package e2e

import (
	"testing"
	"time"

	"peercompute/test/internal/testmesh"
)

// Who queued jobs changes its key, and so does the peer that they are queued on. The
// jobs are the new key's: in the queue, with their inputs, and what is done already,
// whose receipt is signed with keys that were replaced before it was fetched.
func TestQueuedJobsFollowTheKey(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice, bob := m.Peer("alice", "--heartbeat", "1s"), m.Peer("bob", "--heartbeat", "1s")
	m.Lend(bob, alice)
	count, spin := testmesh.Wasm(t, "wordcount"), testmesh.Tiny(t, "")
	is := func(id, state string) func() bool {
		return func() bool { return jobsOf(t, bob)[id].State == state }
	}
	done := submit(t, alice, "one two\n", "--peer", "bob", count)
	within(t, 60*time.Second, "the first job to end", is(done, "done"))
	var long []string
	for range 12 { // more than run at once
		long = append(long, submit(t, alice, "", "--peer", "bob", "--fuel", "1T", "--timeout", "10m", "--cpus", "0.05", spin))
	}
	waits := submit(t, alice, "one two three\n", "--peer", "bob", count)
	within(t, 60*time.Second, "a job to run", func() bool {
		for _, j := range jobsOf(t, bob) {
			if j.State == "running" {
				return true
			}
		}
		return false
	})
	if !is(waits, "queued")() {
		t.Fatal("the job does not wait; this test shows nothing")
	}

	rotate(t, alice)
	rotate(t, bob)
	rotate(t, alice, "--compromised")
	if his := jobsOf(t, bob); len(his) != 14 || his[waits].Owner != "alice" || his[waits].State != "queued" || his[done].Owner != "alice" {
		t.Fatalf("bob lists %+v", his)
	}
	for _, id := range long {
		alice.Must("job", "cancel", id)
	}
	for id, want := range map[string]string{done: "1 lines, 2 words, 8 bytes\n", waits: "1 lines, 3 words, 14 bytes\n"} {
		if r := alice.Ctl("job", "wait", id); r.Code != 0 {
			t.Errorf("wait: status %d, %s%s", r.Code, r.Stdout, r.Stderr)
		}
		if out := alice.Must("job", "result", id); out != want {
			t.Errorf("result: %q, want %q", out, want)
		}
	}
	fetched := 0
	for _, r := range receipts(t, alice) {
		if r.ID == done || r.ID == waits {
			fetched++
		}
		if r.Flaw != "" {
			t.Errorf("receipt of %s: %s", r.ID, r.Flaw)
		}
	}
	if fetched != 2 {
		t.Errorf("alice has %d of the two receipts", fetched)
	}
}
