package e2e

import (
	"strings"
	"testing"

	"peercompute/test/internal/testmesh"
)

// Three peers run the same job with the same seed and agree to the unit of fuel. A
// peer that does not take it is passed over and named, and where too few are left, or
// the job sees what differs from peer to peer, there is no result.
func TestQuorum(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice, bob, carol, dave := m.Peer("alice"), m.Peer("bob"), m.Peer("carol"), m.Peer("dave")
	for _, n := range []*testmesh.Node{bob, carol, dave} {
		m.Lend(n, alice)
	}
	count := testmesh.Wasm(t, "wordcount")
	text := []byte("one two\nthree\n")
	run := func(args ...string) testmesh.Result {
		return alice.CtlIn(text, append([]string{"run", "--replicas", "3", "--quorum", "2"}, args...)...)
	}
	if r := run(count, "--", "-exit", "7"); r.Code != 7 || r.Stdout != "2 lines, 3 words, 14 bytes\n" || strings.Contains(r.Stderr, "differs") {
		t.Fatalf("%+v", r)
	}
	for _, peer := range []string{"bob", "carol", "dave"} { // one may come after the result
		of(t, alice, peer, func(r receipt) bool { return len(r.Verified) == 1 && r.Verified[0].Agrees })
	}
	list := receipts(t, alice)
	if len(list) != 3 {
		t.Fatalf("%d receipts, want one of each peer", len(list))
	}
	peers := map[string]bool{}
	for _, r := range list {
		peers[r.Peer] = true
		if r.Fuel != list[0].Fuel || r.Output != list[0].Output || r.Input != digest(text) || r.Exit != 7 || r.Flaw != "" {
			t.Errorf("%+v\ndiffers from %+v", r, list[0])
		}
	}
	if len(peers) != 3 {
		t.Errorf("ran on %v", peers)
	}

	dave.Must("peers", "allow", "alice", "--allow", "observe")
	// Dave's refusal may come when the two others have agreed already.
	if r := run(count); r.Code != 0 || !strings.Contains(r.Stderr, "dave failed: you may not deploy here") && !strings.Contains(r.Stderr, "dave was not waited for") ||
		!strings.HasSuffix(r.Stdout, "words, 14 bytes\n") {
		t.Errorf("one does not take it: %+v", r)
	}
	if r := run("--quorum", "3", count); r.Code != 125 || r.Stdout != "" || !strings.Contains(r.Stderr, "dave failed: you may not deploy here") ||
		!strings.Contains(r.Stderr, "no 3 of 3 peers agree") || !strings.Contains(r.Stderr, "[run.quorum]") {
		t.Errorf("two cannot be three: %+v", r)
	}
	// What ends from outside counts for nothing.
	if r := run("--timeout", "300ms", "--fuel", "1T", count, "--", "-spin"); r.Code != 125 || !strings.Contains(r.Stderr, "ended from outside") {
		t.Errorf("ended from outside: %+v", r)
	}
	refused(t, alice.Ctl("run", "--replicas", "4", count), "4 replicas need as many trusted peers; there are 3")
}
