package e2e

import (
	"strings"
	"testing"
	"time"

	"peercompute/test/internal/testmesh"
)

// One command ends everything: nobody gets in, nothing runs, also after a
// restart; another makes the list count again.
func TestLockdown(t *testing.T) {
	m := testmesh.New(t)
	alice, bob := m.Peer("alice"), m.Peer("bob")
	m.Lend(bob, alice)
	hello := testmesh.Wasm(t, "hello-wasm")
	alice.Must("deploy", hello, "--peer", "bob", "--name", "hello")
	bob.Must("lockdown")
	for range 2 {
		if r := alice.Ctl("deploy", hello, "--peer", "bob", "--name", "again"); r.Code == 0 {
			t.Fatal("deployed under lockdown")
		}
		deadline := time.Now().Add(30 * time.Second)
		for !strings.Contains(bob.Must("ps"), "stopped") {
			if time.Now().After(deadline) {
				t.Fatalf("the workload still runs:\n%s", bob.Must("ps"))
			}
			time.Sleep(50 * time.Millisecond)
		}
		if s := bob.Must("status"); !strings.Contains(s, "locked down") {
			t.Fatalf("status does not say so:\n%s", s)
		}
		bob.Stop()
		bob.Start()
	}
	bob.Must("unlock")
	alice.Must("deploy", hello, "--peer", "bob", "--name", "again")
}

// A pause refuses peers with the reason, leaves what runs, and lets the owner be.
func TestPause(t *testing.T) {
	m := testmesh.New(t)
	alice, bob := m.Peer("alice"), m.Peer("bob")
	m.Lend(bob, alice)
	hello := testmesh.Wasm(t, "hello-wasm")
	alice.Must("deploy", hello, "--peer", "bob", "--name", "before")
	bob.Must("pause", "2h")
	r := alice.Ctl("deploy", hello, "--peer", "bob", "--name", "during")
	if r.Code == 0 || !strings.Contains(r.Stderr, "host.paused") || !strings.Contains(r.Stderr, "until 20") {
		t.Fatalf("refused with %q; want the rule and the time it opens", r.Stderr)
	}
	if ps := alice.Must("ps"); !strings.Contains(ps, "running") {
		t.Fatalf("what ran does not:\n%s", ps)
	}
	bob.Must("deploy", hello, "--peer", "self", "--name", "own")
	bob.Must("resume")
	alice.Must("deploy", hello, "--peer", "bob", "--name", "after")
}
