package e2e

import (
	"testing"
	"time"

	"peercompute/test/internal/testmesh"
)

// A new run of a container and of a guest, of one that runs and of one that was
// stopped; and none beyond what the grant still allows.
func TestRestartOfAWorkload(t *testing.T) {
	t.Parallel()
	image := container(t)
	m := testmesh.New(t)
	alice, bob := m.Peer("alice"), m.Peer("bob")
	m.Lend(bob, alice)
	box := deploy(t, alice, image, "--peer", "bob", "--name", "box", "--port", "8080")
	deploy(t, alice, testmesh.Tiny(t, "hello"), "--peer", "bob", "--name", "hello")
	before := bob.Containers()[box.ID]
	alice.Must("restart", "box", "hello")
	if now := bob.Containers()[box.ID]; now.State != "running" || now.ID == before.ID {
		t.Errorf("the container was %+v, and is %+v", before, now)
	}
	if w := find(t, alice, "hello"); w.State != "running" {
		t.Errorf("the guest is %s", w.State)
	}
	alice.Must("stop", "hello")
	bob.Must("peers", "allow", "alice", "--max-workloads", "1")
	refused(t, alice.Ctl("restart", "hello"), "bob refused", "[grant.workloads]")
	bob.Must("peers", "allow", "alice", "--max-workloads", "2")
	alice.Must("restart", "hello")
	within(t, 20*time.Second, "hello to run", func() bool { return find(t, alice, "hello").State == "running" })
}
