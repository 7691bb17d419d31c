package e2e

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
	"peercompute/pkg/wire"
	"peercompute/test/internal/testmesh"
)

// rotate changes a node's key and returns what the command says.
func rotate(t *testing.T, n *testmesh.Node, args ...string) control.Rotation {
	t.Helper()
	return parse[control.Rotation](t, n.Must(append([]string{"identity", "rotate", "--yes", "-o", "json"}, args...)...))
}

// A peer, the one who uses it and the gateway change their keys one after another.
// The guest runs on throughout, its owner stays in control of it, and its public
// address stays the same.
func TestRotation(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice, bob, gw := m.Peer("alice", "--heartbeat", "1s"), m.Peer("bob", "--heartbeat", "1s"), m.Gateway("gw", "--heartbeat", "1s")
	m.Lend(bob, alice)
	m.Route(bob, gw)
	web := m.Web(gw)
	w := deploy(t, alice, testmesh.Tiny(t, "hello"), "--peer", "bob", "--name", "hello", "--publish")
	own := deploy(t, bob, testmesh.Tiny(t, "own"), "--peer", "self", "--name", "own")
	workers := bob.Workers()

	for _, n := range []*testmesh.Node{alice, bob, gw} {
		old := n.ID()
		r := rotate(t, n)
		if r.Old != old || r.New == old || len(r.Told) == 0 || len(r.Waiting) != 0 {
			t.Fatalf("%s: %+v", n.Name, r)
		}
		if who := parse[control.Whoami](t, n.Must("whoami", "-o", "json")); who.ID != r.New {
			t.Fatalf("%s is %s, not %s", n.Name, who.ID, r.New)
		}
		for _, other := range []*testmesh.Node{alice, bob, gw} {
			for _, p := range parse[[]control.Peer](t, other.Must("peers", "ls", "-o", "json")) {
				if p.ID == old {
					t.Errorf("%s still knows %s by its old key", other.Name, n.Name)
				}
			}
		}
		within(t, 20*time.Second, "the public address to answer", func() bool { return status(t, web, w.URL) == http.StatusOK })
		within(t, 20*time.Second, "alice to see it run at its address", func() bool {
			now := find(t, alice, "hello")
			return now.ID == w.ID && now.State == mesh.Running && now.URL == w.URL
		})
	}
	// Bob's own guest is a new owner's now, but both run where they ran.
	if after := bob.Workers(); len(after) == 0 || !slices.Equal(slices.Sorted(slices.Values(after)), slices.Sorted(slices.Values(workers))) {
		t.Errorf("the workers were processes %v and are %v: the guests were started anew", workers, after)
	}
	if now := find(t, bob, "own"); now.ID != own.ID || now.Owner != "self" || now.State != mesh.Running {
		t.Errorf("bob's own workload is %+v", now)
	}
	if now := find(t, bob, "hello"); now.Owner != "alice" {
		t.Errorf("alice's workload belongs to %q", now.Owner)
	}
	// The owner is in control, also after everybody was started again.
	for _, n := range []*testmesh.Node{gw, bob, alice} {
		n.Stop()
		n.Start()
	}
	within(t, 20*time.Second, "alice to see it run", func() bool { return find(t, alice, "hello").State == mesh.Running })
	deploy(t, alice, testmesh.Tiny(t, "more"), "--peer", "bob", "--name", "more")
	alice.Must("rm", "-f", "more")
	alice.Must("stop", "hello")
	if s := find(t, bob, "hello").State; s != mesh.Stopped {
		t.Errorf("after its owner stopped it, it is %s", s)
	}
	for _, n := range []*testmesh.Node{alice, bob, gw} {
		if out := strings.TrimSpace(n.Must("alarms", "-o", "json")); out != "[]" {
			t.Errorf("%s raised %s", n.Name, out)
		}
	}
}

// A peer that was away learns of the new key when it is back: from the courier, or by
// asking whoever answers at the known address.
func TestRotationWhileAway(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice, bob, carol := m.Peer("alice", "--heartbeat", "1s"), m.Peer("bob", "--heartbeat", "1s"), m.Peer("carol", "--heartbeat", "1s")
	m.Lend(bob, alice)
	// Carol knows where alice is, and alice does not know where carol is.
	carol.Must("peers", "add", alice.Addr(), "--name", "alice", "--allow", "observe")
	alice.Must("peers", "add", carol.ID().String(), "--name", "carol")
	bob.Stop()
	carol.Stop()
	r := rotate(t, alice)
	if len(r.Told) != 0 || len(r.Waiting) != 2 {
		t.Fatalf("told %v, waiting %v", r.Told, r.Waiting)
	}
	r = rotate(t, alice) // twice, so that a lineage of two steps is needed
	if s := alice.Must("status"); !strings.Contains(s, "not told yet: bob, carol") {
		t.Errorf("status:\n%s", s)
	}
	bob.Start()
	carol.Start()
	for _, n := range []*testmesh.Node{bob, carol} {
		within(t, 60*time.Second, n.Name+" to know the new key", func() bool {
			for _, p := range parse[[]control.Peer](t, n.Must("peers", "ls", "-o", "json")) {
				if p.Name == "alice" {
					return p.ID == r.New
				}
			}
			return false
		})
	}
	deploy(t, alice, testmesh.Tiny(t, "hello"), "--peer", "bob", "--name", "hello")
	within(t, 60*time.Second, "alice to know that all were told", func() bool { return !strings.Contains(alice.Must("status"), "not told yet") })
}

// A key that may be stolen is denied at once by those who hear of it. A successor that
// is named after the first one is refused, with an alarm.
func TestCompromisedKey(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice, bob := m.Peer("alice"), m.Peer("bob")
	m.Lend(bob, alice)
	thief := testmesh.Steal(t, alice, bob.Addr())
	ctx := t.Context()
	if _, err := thief.Hello(ctx, bob.ID()); err != nil {
		t.Fatalf("before, the stolen key does not even work: %v", err)
	}
	r := rotate(t, alice, "--compromised")
	if len(r.Told) != 1 {
		t.Fatalf("told %v, waiting %v", r.Told, r.Waiting)
	}
	if _, err := thief.Hello(ctx, bob.ID()); err == nil {
		t.Error("the stolen key is still let in")
	}
	deploy(t, alice, testmesh.Tiny(t, "hello"), "--peer", "bob", "--name", "hello")

	// The other way round: the thief is faster.
	carol := m.Peer("carol")
	m.Lend(bob, carol)
	thief = testmesh.Steal(t, carol, bob.Addr())
	if err := thief.Rotate(t, bob.ID(), time.Hour); err != nil {
		t.Fatalf("the thief cannot do it: %v", err)
	}
	r = rotate(t, carol, "--compromised")
	if len(r.Told) != 0 || len(r.Waiting) != 1 || !strings.Contains(r.Waiting[0].Reason, "second successor") {
		t.Errorf("told %v, waiting %v; want a refusal that names the other successor", r.Told, r.Waiting)
	}
	for n, kind := range map[*testmesh.Node]string{bob: "peer.rotation.fork", carol: "self.rotation.fork"} {
		if out := n.Must("alarms"); !strings.Contains(out, kind) {
			t.Errorf("%s raised:\n%s", n.Name, out)
		}
	}
	// What is left to do, as it is documented.
	bob.Must("peers", "remove", "carol")
	if _, err := thief.Hello(ctx, bob.ID()); err == nil {
		t.Error("after the removal the stolen key is let in")
	}
	token := strings.TrimSpace(bob.Must("peers", "invite", "--allow", "deploy", "--name", "carol"))
	carol.Must("peers", "remove", "bob")
	carol.Must("peers", "join", token, "--name", "bob")
	deploy(t, carol, testmesh.Tiny(t, "hi"), "--peer", "bob", "--name", "hi")
}

// peerd is killed at any moment of a change of its key. Started again it has one key
// or the other, carries the change through, and is in control of what is its own.
func TestKilledWhileRotating(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice, bob := m.Peer("alice", "--heartbeat", "1s"), m.Peer("bob", "--heartbeat", "1s")
	m.Lend(bob, alice)
	deploy(t, alice, testmesh.Tiny(t, "hello"), "--peer", "bob", "--name", "hello")
	for i := range 7 { // eight a day are allowed
		before := alice.ID()
		c := alice.Client()
		done := make(chan error, 1)
		go func() {
			_, err := c.Rotate(t.Context(), control.Rotate{Overlap: time.Hour})
			done <- err
		}()
		moment := time.NewTimer(time.Duration(25*i) * time.Millisecond) // another each time
		<-moment.C
		alice.Kill()
		<-done
		c.Close()
		alice.Start()
		within(t, 60*time.Second, "alice to be in control", func() bool {
			r := alice.Ctl("ps", "-o", "json") // the node may be starting again
			if r.Code != 0 {
				return false
			}
			for _, w := range parse[[]work](t, r.Stdout) {
				if w.Name == "hello" {
					return w.State == mesh.Running
				}
			}
			return false
		})
		alice.Stop() // so that the next round knows who it is
		alice.Start()
		t.Logf("killed after %d ms: the key changed: %t", 25*i, alice.ID() != before)
	}
}

// While alice's key changes, bob may count what is hers as the new key's already, and tell
// the old one that it has nothing there. She does not forget it for that.
func TestNothingIsForgottenWhileTheKeyChanges(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice := m.Peer("alice")
	var mu sync.Mutex
	var view wire.View
	empty, gate, held := 0, make(chan struct{}), make(chan struct{}, 1) // told that it has nothing; closed when bob answers; bob was told of the key
	close(gate)
	holding := func() bool {
		select {
		case <-gate:
			return false
		default:
			return true
		}
	}
	bob := testmesh.NewLiar(t, map[wire.Verb]testmesh.Answer{
		wire.VerbDeploy: func(_ *testmesh.Liar, o *wire.Opened) (any, testmesh.Then) {
			var in wire.Deploy
			_ = wire.DecodeBody(o.Body, &in)
			mu.Lock()
			defer mu.Unlock()
			view = wire.View{Revision: 1, Status: mesh.Status{State: mesh.Running}, Workload: mesh.Workload{
				ID: mesh.NewWorkloadID(o.Digest), Owner: o.From, Spec: in.Spec.WithDefaults(), Created: time.Now(),
			}}
			return wire.Accepted{Workload: view.Workload.ID, Spec: view.Workload.Spec, Revision: 1}, nil
		},
		wire.VerbList: func(*testmesh.Liar, *wire.Opened) (any, testmesh.Then) {
			mu.Lock()
			defer mu.Unlock()
			if holding() {
				empty++
				return wire.ListReply{}, nil
			}
			return wire.ListReply{Workloads: []wire.View{view}}, nil
		},
		wire.VerbRotate: func(*testmesh.Liar, *wire.Opened) (any, testmesh.Then) {
			mu.Lock()
			gate := gate
			mu.Unlock()
			select {
			case held <- struct{}{}:
			default:
			}
			<-gate
			return wire.Empty{}, nil
		},
	})
	alice.Must("peers", "add", bob.Addr(), "--name", "bob")
	alice.Must("deploy", "example.org/app:1", "--peer", "bob", "--name", "app", "-d")
	at := time.Now()
	within(t, time.Minute, "it to be older than what a list may not know yet", func() bool { return time.Since(at) > 6*time.Second })
	for range 5 { // the change goes on without bob after a while, so that this may come too late
		mu.Lock()
		gate = make(chan struct{})
		mu.Unlock()
		changed := make(chan testmesh.Result, 1)
		go func() { changed <- alice.Ctl("identity", "rotate", "--yes") }()
		<-held
		alice.Must("ps")
		mu.Lock()
		close(gate)
		asked := empty
		mu.Unlock()
		if r := <-changed; r.Code != 0 {
			t.Fatalf("%+v", r)
		}
		if asked > 0 {
			within(t, time.Minute, "alice to know what is hers", func() bool {
				list := alice.Ctl("ps", "-o", "json") // the node may be starting again
				return list.Code == 0 && strings.Contains(list.Stdout, `"app"`)
			})
			return
		}
	}
	t.Error("alice was never told that she has nothing; this test shows nothing")
}
