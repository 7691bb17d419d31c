package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"peercompute/pkg/mesh"
	"peercompute/test/internal/testmesh"
)

// peerd is killed with ten workloads running. Started again it adopts the same
// containers, starts the guests anew, and all answer at the same addresses.
func TestTenWorkloadsSurviveKill(t *testing.T) {
	t.Parallel()
	image, boxes := "", 0
	if testmesh.HasEngine() {
		image, boxes = container(t), 5 // before the mesh, so that it goes after the containers
	} else {
		t.Log("no engine: all ten are guests")
	}
	m := testmesh.New(t)
	alice, bob, gw := m.Trio()
	web := m.Web(gw)
	want := map[string]work{}
	for i := range boxes {
		name := fmt.Sprintf("box-%d", i)
		want[name] = deploy(t, alice, image, "--peer", "bob", "--name", name, "--port", "8080", "--publish", "--", "--name", name)
	}
	for i := boxes; i < 10; i++ {
		name := fmt.Sprintf("guest-%d", i)
		want[name] = deploy(t, alice, testmesh.Tiny(t, "hello from "+name+": "), "--peer", "bob", "--name", name, "--publish")
	}
	before := bob.Containers()
	if len(before) != boxes {
		t.Fatalf("%d containers for %d workloads", len(before), boxes)
	}
	workers := bob.Workers()
	if len(workers) == 0 {
		t.Fatal("no worker process runs the guests")
	}

	bob.Kill()
	within(t, 20*time.Second, "the workers to go with peerd", func() bool { return len(bob.Workers()) == 0 })
	began := time.Now()
	bob.Start()
	for name, w := range want {
		within(t, 20*time.Second, name+" to answer", func() bool {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			res, err := web.Do(req)
			if err != nil {
				return false
			}
			defer res.Body.Close()
			body := make([]byte, len("hello from ")+len(name))
			n, _ := res.Body.Read(body)
			return res.StatusCode == http.StatusOK && string(body[:n]) == "hello from "+name
		})
	}
	t.Logf("all ten answer %s after the restart", time.Since(began).Round(time.Millisecond))

	after := bob.Containers()
	for id, c := range before {
		if after[id] != c {
			t.Errorf("workload %s ran in %v, now in %v", id, c, after[id])
		}
	}
	if len(after) != len(before) {
		t.Errorf("%d containers became %d", len(before), len(after))
	}
	list := ps(t, bob)
	if len(list) != len(want) {
		t.Errorf("%d workloads became %d", len(want), len(list))
	}
	// The gateway never forgot the routes, so they answer a moment before they are said to run.
	within(t, 30*time.Second, "alice to see them as they were", func() bool {
		for _, now := range ps(t, alice) {
			if was := want[now.Name]; now.ID != was.ID || now.URL != was.URL || now.State != mesh.Running {
				return false
			}
		}
		return true
	})
	// A clean restart does the same.
	bob.Stop()
	bob.Start()
	for name, w := range want {
		within(t, 20*time.Second, name+" to answer again", func() bool { return status(t, web, w.URL) == http.StatusOK })
	}
	for id, c := range bob.Containers() {
		if before[id] != c {
			t.Errorf("after a clean restart workload %s runs in %v, not in %v", id, c, before[id])
		}
	}
}

// What was stopped or removed while peerd was being killed stays so.
func TestStoppedStaysStopped(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	bob := m.Peer("bob")
	for _, name := range []string{"gone", "still", "runs"} {
		deploy(t, bob, testmesh.Tiny(t, name), "--name", name)
	}
	bob.Must("stop", "still")
	bob.Must("rm", "-f", "gone")
	bob.Kill()
	bob.Start()
	within(t, 30*time.Second, "the one to run", func() bool { return find(t, bob, "runs").State == mesh.Running })
	if list := ps(t, bob); len(list) != 2 || find(t, bob, "still").State != mesh.Stopped {
		t.Errorf("after the restart: %+v", list)
	}
}

// A gateway that is killed and started again gets its tunnels and routes back
// without anybody's help.
func TestGatewayComesBack(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice, bob, gw := m.Trio()
	web := m.Web(gw)
	w := deploy(t, alice, testmesh.Tiny(t, "hello"), "--peer", "bob", "--name", "hello", "--publish")
	for _, how := range []struct {
		name string
		end  func()
	}{{"killed", gw.Kill}, {"stopped", gw.Stop}} {
		how.end()
		ended := time.Now()
		within(t, 30*time.Second, "bob to notice", func() bool {
			return strings.Contains(bob.Must("status"), "gw, down")
		})
		gw.Start()
		most := 5*time.Second + 2*time.Since(ended) // bob tries again after pauses that grow with how long it was gone
		took := within(t, time.Minute, "the route to come back", func() bool { return status(t, web, w.URL) == http.StatusOK })
		t.Logf("%s: back %s after the gateway", how.name, took.Round(time.Millisecond))
		if took > most {
			t.Errorf("the gateway was %s; its route took %s to come back", how.name, took)
		}
	}
	if url := find(t, alice, "hello").URL; url != w.URL {
		t.Errorf("the address was %s, is %s", w.URL, url)
	}
}

// A peer that is away answers 503, not 404: its names are kept for it.
func TestPeerAway(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice, bob, gw := m.Trio()
	web := m.Web(gw)
	w := deploy(t, alice, testmesh.Tiny(t, "hello"), "--peer", "bob", "--name", "hello", "--publish")
	bob.Kill()
	within(t, 30*time.Second, "503", func() bool { return status(t, web, w.URL) == http.StatusServiceUnavailable })
	if s := find(t, alice, "hello").State; s != mesh.Unknown {
		t.Errorf("alice says %s of a workload on a peer that does not answer", s)
	}
	refused(t, alice.Ctl("deploy", testmesh.Tiny(t, "x"), "--peer", "bob"), "cannot reach bob", "next:")
	bob.Start()
	within(t, time.Minute, "the service", func() bool { return status(t, web, w.URL) == http.StatusOK })
}

// Over QUIC nobody is told that a peer was restarted. The next request finds out
// and still arrives, once.
func TestRestartUnnoticed(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice, bob := m.Peer("alice", "--log-level", "debug"), m.Peer("bob")
	bob.Must("peers", "add", alice.QUIC(), "--name", "alice", "--allow", "deploy", "--max-workloads", "9", "--cpus", "4", "--memory", "4G")
	alice.Must("peers", "add", bob.QUIC(), "--name", "bob")
	module := testmesh.Tiny(t, "hello")
	for i := range 5 {
		name := fmt.Sprintf("guest-%d", i)
		deploy(t, alice, module, "--peer", "bob", "--name", name)
		bob.Kill()
		bob.Start()
		if s := find(t, alice, name).State; s == mesh.Unknown {
			t.Errorf("round %d: alice could not ask", i)
		}
	}
	if n := len(ps(t, bob)); n != 5 {
		t.Errorf("bob has %d workloads, want 5", n)
	}
}
