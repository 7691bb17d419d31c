package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"peercompute/pkg/control"
	"peercompute/pkg/store"
	"peercompute/test/internal/testmesh"
)

// life is how a node sees one of its peers.
func life(t *testing.T, n *testmesh.Node, name string) control.Liveness {
	t.Helper()
	for _, p := range parse[[]control.Peer](t, n.Must("peers", "ls", "-o", "json")) {
		if p.Name == name {
			return p.Liveness
		}
	}
	t.Fatalf("%s does not list %q", n.Name, name)
	return control.Liveness{}
}

// Peers see each other live and go, with the way between them; what could be lent
// is told only to who may observe.
func TestHeartbeats(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice, bob := m.Peer("alice", "--heartbeat", "1s"), m.Peer("bob", "--heartbeat", "1s")
	m.Lend(bob, alice) // alice may observe bob, bob may not observe alice
	within(t, 20*time.Second, "both to be alive", func() bool {
		l := life(t, alice, "bob")
		return l.State == "alive" && l.RTT > 0 && l.Free != nil && life(t, bob, "alice").State == "alive"
	})
	l := life(t, alice, "bob")
	if !l.Connected || l.Relayed || l.RTT <= 0 || l.Seen.IsZero() || l.ClockOff != 0 || l.Version == "" || l.Free.Workloads <= 0 || l.Free.Memory <= 0 {
		t.Errorf("alice sees bob as %+v", l)
	}
	if l := life(t, bob, "alice"); l.Free != nil {
		t.Errorf("bob may not observe alice and is told %+v", l.Free)
	}
	before := l.Free.Workloads
	deploy(t, alice, testmesh.Tiny(t, "hello"), "--peer", "bob", "--name", "hello")
	within(t, 20*time.Second, "one workload less to be free", func() bool { f := life(t, alice, "bob").Free; return f != nil && f.Workloads == before-1 })
	bob.Must("pause")
	within(t, 20*time.Second, "bob to say that it is closed", func() bool { f := life(t, alice, "bob").Free; return f != nil && f.Closed })
	if s := alice.Must("status"); !strings.Contains(s, "bob:") || !strings.Contains(s, "alive") || !strings.Contains(s, "direct") {
		t.Errorf("status:\n%s", s)
	}
	bob.Kill()
	took := within(t, 45*time.Second, "bob to be away", func() bool { return life(t, alice, "bob").State == "away" })
	t.Logf("away %s after it was killed", took.Round(time.Millisecond))
	bob.Start()
	took = within(t, 45*time.Second, "bob to be alive again", func() bool { return life(t, alice, "bob").State == "alive" })
	t.Logf("alive %s after it was started", took.Round(time.Millisecond))
	for _, n := range []*testmesh.Node{alice, bob} {
		if out := n.Must("alarms", "-o", "json"); strings.TrimSpace(out) != "[]" {
			t.Errorf("%s raised %s", n.Name, out)
		}
	}
}

// A state file that was put back to an older copy: its peers know better. The node
// allows nobody anything, and nothing signed for the old state is taken any more.
func TestRolledBackStateFile(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice, bob := m.Peer("alice", "--heartbeat", "1s"), m.Peer("bob", "--heartbeat", "1s")
	m.Lend(bob, alice)
	within(t, 20*time.Second, "bob to be seen", func() bool { return life(t, alice, "bob").State == "alive" })
	bob.Stop()
	// All that could tell on this machine is put back too, as a snapshot of a disk does.
	old := map[string][]byte{}
	for _, name := range []string{store.FileName, store.FileName + store.MarkSuffix} {
		data, err := os.ReadFile(filepath.Join(bob.Home, name))
		if err != nil {
			t.Fatal(err)
		}
		old[name] = data
	}
	bob.Start()
	carol := testmesh.NewActor(t)
	bob.Must("peers", "add", carol.Key.ID.String(), "--name", "carol")
	bob.Must("peers", "remove", "carol")
	// Alice sees the head after that in a heartbeat that comes from now on.
	at := time.Now()
	within(t, 30*time.Second, "alice to see the new head", func() bool {
		l := life(t, alice, "bob")
		return l.State == "alive" && l.Seen.Sub(at) > 3*time.Second
	})
	bob.Stop()
	for name, data := range old {
		if err := os.WriteFile(filepath.Join(bob.Home, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	bob.Start()
	within(t, 30*time.Second, "bob to deny everybody and to say why", func() bool {
		s := bob.Must("status")
		return strings.Contains(s, "locked down") && strings.Contains(s, "alice saw this node's logs") && strings.Contains(s, "rolled back")
	})
	refused(t, alice.Ctl("deploy", testmesh.Tiny(t, "x"), "--peer", "bob"))
	within(t, 30*time.Second, "alice's alarm", func() bool {
		out := alice.Must("alarms")
		return strings.Contains(out, "peer.rolled-back") && strings.Contains(out, "bob")
	})
	bob.Must("unlock")
	within(t, 30*time.Second, "bob to be alive", func() bool { return life(t, alice, "bob").State == "alive" })
	deploy(t, alice, testmesh.Tiny(t, "x"), "--peer", "bob", "--name", "x")
	if s := bob.Must("status"); strings.Contains(s, "locked down") {
		t.Errorf("locked again:\n%s", s)
	}
}
