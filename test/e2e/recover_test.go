package e2e

import (
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"peercompute/pkg/mesh"
	"peercompute/test/internal/testmesh"
)

// What crashes by itself is started again, at the same address.
func TestCrashedWorkloadsComeBack(t *testing.T) {
	t.Parallel()
	image := ""
	if testmesh.HasEngine() {
		image = container(t)
	}
	m := testmesh.New(t)
	alice, bob, gw := m.Trio()
	web := m.Web(gw)
	guest := deploy(t, alice, testmesh.Tiny(t, "hello"), "--peer", "bob", "--name", "guest", "--publish")
	killWorkers(t, bob)
	within(t, time.Minute, "the guest to come back", func() bool { return status(t, web, guest.URL) == http.StatusOK })

	if image == "" {
		t.Log("no engine: the container's part is left out")
		return
	}
	box := deploy(t, alice, image, "--peer", "bob", "--name", "box", "--port", "8080", "--publish")
	was := bob.Containers()[box.ID]
	if out, err := exec.CommandContext(t.Context(), "docker", "kill", was.ID).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	within(t, time.Minute, "the container to come back", func() bool {
		w := find(t, alice, "box")
		return w.State == mesh.Running && w.URL == box.URL && bob.Containers()[box.ID].State == "running" && status(t, web, box.URL) == http.StatusOK
	})
	s := parse[struct{ Status mesh.Status }](t, alice.Must("inspect", "box", "-o", "json"))
	if s.Status.Restarts != 1 {
		t.Errorf("it counts %d restarts, want 1", s.Status.Restarts)
	}
}

// Bob is killed while he is being given work. What he had accepted is there
// afterwards, once; what he had not is either there once or not at all.
func TestKilledWhileDeploying(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice, bob := m.Peer("alice"), m.Peer("bob")
	m.Lend(bob, alice)
	module := testmesh.Tiny(t, "hello")
	deploy(t, alice, module, "--peer", "bob", "--name", "first")
	accepted := map[string]bool{"first": true}
	for round := range 4 {
		var mu sync.Mutex
		var wg sync.WaitGroup
		for i := range 4 {
			name := fmt.Sprintf("w-%d-%d", round, i)
			wg.Go(func() {
				if alice.Ctl("deploy", module, "--peer", "bob", "--name", name, "--detach").Code == 0 {
					mu.Lock()
					accepted[name] = true
					mu.Unlock()
				}
			})
		}
		time.Sleep(time.Duration(20+30*round) * time.Millisecond)
		bob.Kill()
		bob.Start()
		wg.Wait()
	}
	list := ps(t, bob)
	seen := map[string]bool{}
	for _, w := range list {
		if seen[w.Name] {
			t.Errorf("%s is there twice", w.Name)
		}
		seen[w.Name] = true
	}
	for name := range accepted {
		if !seen[name] {
			t.Errorf("%s was accepted and is lost", name)
		}
	}
	t.Logf("%d of 17 accepted, %d there", len(accepted), len(list))
	within(t, 20*time.Second, "all to run", func() bool {
		for _, w := range ps(t, bob) {
			if w.State != mesh.Running {
				return false
			}
		}
		return true
	})
}

// With two gateways the one must be named, and a name can move from one to the other.
func TestTwoGateways(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	bob, east, west := m.Peer("bob"), m.Gateway("east"), m.Gateway("west")
	m.Route(bob, east)
	m.Route(bob, west)
	module := testmesh.Tiny(t, "hello")
	refused(t, bob.Ctl("deploy", module, "--peer", "self", "--name", "hello", "--publish"), "2 gateways", "east, west", "--gateway")
	w := deploy(t, bob, module, "--peer", "self", "--name", "hello", "--gateway", "east")
	if code := status(t, m.Web(east), w.URL); code != http.StatusOK {
		t.Errorf("east: %d", code)
	}
	label, _, _ := strings.Cut(w.URL, ".")
	at := func(gw *testmesh.Node) string {
		return label + ".localhost:" + gw.Public[strings.LastIndex(gw.Public, ":")+1:]
	}
	if code := status(t, m.Web(west), at(west)); code != http.StatusNotFound {
		t.Errorf("west routes what it was not asked to: %d", code)
	}
	url := strings.TrimSpace(bob.Must("publish", "hello", "--gateway", "west"))
	if url != at(west) {
		t.Errorf("moved to %s, want %s", url, at(west))
	}
	if code := status(t, m.Web(west), url); code != http.StatusOK {
		t.Errorf("west: %d", code)
	}
	soon(t, 3*time.Second, "east to let go", func() bool { return status(t, m.Web(east), w.URL) == http.StatusNotFound })
	if now := find(t, bob, "hello").URL; now != url {
		t.Errorf("ps shows %q, want %s", now, url)
	}
}
