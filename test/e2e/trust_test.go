package e2e

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
	"peercompute/pkg/testkit"
	"peercompute/pkg/wire"
	"peercompute/test/internal/testmesh"
)

// Removing a peer stops what it runs here and cuts what it has open, within a second.
func TestRemovedPeer(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice, bob, gw := m.Trio()
	web := m.Web(gw)
	w := deploy(t, alice, testmesh.Tiny(t, "hello"), "--peer", "bob", "--name", "hello", "--publish")

	// A connection of alice's that is open and busy.
	log := alice.Client()
	defer log.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stream, err := log.Logs(ctx, "hello", "bob", control.LogOptions{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	cut := make(chan time.Time, 1)
	go func() {
		_, _ = io.Copy(io.Discard, stream)
		cut <- time.Now()
	}()

	stall, began := testkit.WatchStall(t), time.Now()
	if out := bob.Must("peers", "remove", "alice", "-o", "json"); !strings.Contains(out, string(w.ID)) {
		t.Errorf("the answer does not name the workload that was stopped:\n%s", out)
	}
	within(t, 20*time.Second, "404", func() bool { return status(t, web, w.URL) == http.StatusNotFound })
	within(t, 20*time.Second, "the guest to stop", func() bool { return find(t, bob, "hello").State == mesh.Stopped })
	all := time.Since(began)
	select {
	case at := <-cut:
		all = max(all, at.Sub(began))
	case <-time.After(20 * time.Second):
		t.Fatal("a log is still being followed")
	}
	lost := stall.Lost()
	t.Logf("all done %s after the removal was asked for, %s of it lost to others", all.Round(time.Millisecond), lost.Round(time.Millisecond))
	if all -= lost; all > time.Second {
		t.Errorf("the removal took %s, want at most 1s", all)
	}
	if w := find(t, alice, "hello"); w.State != mesh.Unknown {
		t.Errorf("alice still sees it: %+v", w)
	}
	refused(t, alice.Ctl("deploy", testmesh.Tiny(t, "again"), "--peer", "bob"), "bob")
	bob.Kill()
	bob.Start() // it stays so
	refused(t, alice.Ctl("deploy", testmesh.Tiny(t, "again"), "--peer", "bob"), "bob")
	if s := find(t, bob, "hello").State; s != mesh.Stopped {
		t.Errorf("after a restart the guest is %s", s)
	}
}

// With --keep the workloads of a removed peer go on.
func TestRemovedPeerKept(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice, bob, gw := m.Trio()
	w := deploy(t, alice, testmesh.Tiny(t, "hello"), "--peer", "bob", "--name", "hello", "--publish")
	bob.Must("peers", "remove", "alice", "--keep")
	if code := status(t, m.Web(gw), w.URL); code != http.StatusOK {
		t.Errorf("got %d", code)
	}
	if here := find(t, bob, "hello"); here.Owner != alice.ID().String() || here.State != mesh.Running {
		t.Errorf("bob has %+v", here)
	}
	bob.Must("rm", "-f", "hello") // its owner is gone; the machine is bob's
}

// A gateway from which "route" is taken, or that takes "publish" away, routes nothing more.
func TestRouteWithdrawn(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	_, bob, gw := m.Trio()
	web := m.Web(gw)
	w := deploy(t, bob, testmesh.Tiny(t, "hello"), "--peer", "self", "--name", "hello", "--publish")
	if code := status(t, web, w.URL); code != http.StatusOK {
		t.Fatalf("got %d", code)
	}
	bob.Must("peers", "allow", "gw", "--allow", "none")
	soon(t, 2*time.Second, "no route for bob", func() bool { return status(t, web, w.URL) >= 400 })
	bob.Must("peers", "allow", "gw", "--allow", "route")
	within(t, 20*time.Second, "the route again", func() bool { return status(t, web, w.URL) == http.StatusOK })
	gw.Must("peers", "allow", "bob", "--allow", "none")
	soon(t, 2*time.Second, "404", func() bool { return status(t, web, w.URL) == http.StatusNotFound })
	gw.Must("peers", "allow", "bob", "--allow", "publish")
	within(t, 30*time.Second, "the route once more", func() bool { return status(t, web, w.URL) == http.StatusOK })
	gw.Must("peers", "remove", "bob")
	soon(t, 2*time.Second, "404", func() bool { return status(t, web, w.URL) == http.StatusNotFound })
}

// A stranger reaches no handler, over TCP or QUIC, by any protocol that a node
// speaks: not one byte comes back.
func TestStrangerReachesNothing(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	bob, gw := m.Peer("bob", "--log-level", "debug"), m.Gateway("gw")
	protocols := []string{wire.ProtocolHello, wire.ProtocolRequest, wire.TunnelProtocol, "/ipfs/id/1.0.0", "/ipfs/ping/1.0.0", "/ipfs/id/push/1.0.0"}
	for _, target := range []*testmesh.Node{bob, gw} {
		for _, addr := range target.Addrs() {
			for _, proto := range protocols {
				for range 3 { // a new key each time
					a := testmesh.NewActor(t, addr)
					if got := knock(t, a, target.ID(), proto); len(got) != 0 {
						t.Errorf("%s on %s: a stranger got %q", proto, addr, got)
					}
				}
			}
			a := testmesh.NewActor(t, addr)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			if h, err := a.Hello(ctx, target.ID()); err == nil {
				t.Errorf("a stranger learnt the incarnation of %s at %s: %x", target.Name, addr, h.Incarnation)
			}
			cancel()
			if _, up := a.Net.Connected(target.ID()); up {
				within(t, 20*time.Second, "the stranger to be cut off", func() bool { _, up := a.Net.Connected(target.ID()); return !up })
			}
		}
	}
	for _, n := range []*testmesh.Node{bob, gw} {
		if s := parse[struct{ Connected int }](t, n.Must("status", "-o", "json")); s.Connected != 0 {
			t.Errorf("%s counts %d connections", n.Name, s.Connected)
		}
		if log := n.Log(); strings.Contains(log, "refused a request") || strings.Contains(log, "request stream") {
			t.Errorf("a handler ran on %s:\n%s", n.Name, n.LogTail(20))
		}
	}

	// The same knocks open the door for a peer that is trusted, at both addresses.
	for _, addr := range bob.Addrs() {
		friend := testmesh.NewActor(t, addr)
		bob.Must("peers", "add", friend.Key.ID.String())
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		if _, err := friend.Hello(ctx, bob.ID()); err != nil {
			t.Errorf("a trusted peer at %s: %v", addr, err)
		}
		cancel()
	}
}

// knock opens a stream, sends something plausible, and returns what comes back.
func knock(t *testing.T, a *testmesh.Actor, p mesh.PeerID, proto string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	st, err := a.Net.Open(ctx, p, proto)
	if err != nil {
		return nil
	}
	defer st.Reset()
	defer context.AfterFunc(ctx, st.Reset)()
	if _, err := st.Write(bytes.Repeat([]byte{0}, 64)); err != nil {
		return nil
	}
	_ = st.CloseWrite()
	got, _ := io.ReadAll(io.LimitReader(st, 1<<10))
	return got
}
