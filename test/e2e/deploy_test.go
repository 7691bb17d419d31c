package e2e

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"peercompute/pkg/mesh"
	"peercompute/test/internal/testmesh"
)

// A guest deployed on another peer goes through its whole life: answered through
// the gateway, listed, read, withdrawn, published again, stopped, removed.
func TestLifeOfAGuest(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice, bob, gw := m.Trio()
	web := m.Web(gw)
	w := deploy(t, alice, testmesh.Wasm(t, "hello-wasm"), "--peer", "bob", "--name", "hello", "--env", "GREETING=salve", "--publish")
	if w.State != mesh.Running || w.Peer != "bob" || w.Name != "hello" || w.ID == "" {
		t.Fatalf("deploy says %+v", w)
	}
	if host, _, _ := strings.Cut(strings.TrimPrefix(w.URL, "http://"), ":"); !strings.HasPrefix(host, "hello-") || !strings.HasSuffix(host, ".localhost") {
		t.Fatalf("the URL is %q", w.URL)
	}
	if res, body := get(t, web, w.URL+"/env"); res.StatusCode != http.StatusOK || !strings.Contains(body, "GREETING=salve\n") {
		t.Errorf("got %s %q", res.Status, body)
	}
	if res, body := do(t, web, http.MethodPost, w.URL+"/echo", strings.NewReader("four score")); body != "four score" {
		t.Errorf("echo: got %s %q", res.Status, body)
	}
	if res, _ := get(t, web, w.URL+"/status?code=418"); res.StatusCode != http.StatusTeapot {
		t.Errorf("status: got %s", res.Status)
	}

	seen := find(t, alice, "hello")
	if seen.ID != w.ID || seen.URL != w.URL || seen.Kind != "wasm" || seen.Owner != "self" {
		t.Errorf("alice lists it as %+v", seen)
	}
	if here := find(t, bob, "hello"); here.Peer != "self" || here.Owner != "alice" {
		t.Errorf("bob lists it as %+v", here)
	}
	if spec := alice.Must("inspect", "hello"); !strings.Contains(spec, "GREETING") || strings.Contains(spec, "salve") {
		t.Errorf("inspect shows the names of the environment, not its values; got\n%s", spec)
	}

	alice.Must("unpublish", "hello")
	soon(t, 2*time.Second, "unpublish", func() bool { return status(t, web, w.URL) == http.StatusNotFound })
	if url := strings.TrimSpace(alice.Must("publish", "hello")); url != w.URL {
		t.Errorf("published again at %s, want %s", url, w.URL)
	}
	if code := status(t, web, w.URL); code != http.StatusOK {
		t.Errorf("published again: got %d", code)
	}

	refused(t, alice.Ctl("rm", "hello"), "hello", "peerctl stop hello")
	alice.Must("stop", "hello")
	soon(t, time.Second, "the name to go after stop", func() bool { return status(t, web, w.URL) == http.StatusNotFound })
	if s := find(t, alice, "hello"); s.State != mesh.Stopped || s.URL != "" {
		t.Errorf("after stop: %+v", s)
	}
	alice.Must("rm", "hello")
	if left := ps(t, bob); len(left) != 0 {
		t.Errorf("after rm bob has %+v", left)
	}
	if left := ps(t, alice); len(left) != 0 {
		t.Errorf("after rm alice lists %+v", left)
	}
}

func TestLifeOfAContainer(t *testing.T) {
	t.Parallel()
	image := container(t)
	m := testmesh.New(t)
	alice, bob, gw := m.Trio()
	web := m.Web(gw)
	w := deploy(t, alice, image, "--peer", "bob", "--name", "box", "--port", "8080", "--publish", "--", "--name", "box")
	if _, body := get(t, web, w.URL+"/a?b=c"); body != "hello from box: GET /a?b=c\n" {
		t.Errorf("got %q", body)
	}
	if here := bob.Containers(); len(here) != 1 || here[w.ID].State != "running" {
		t.Errorf("bob's containers: %v", here)
	}
	if log := alice.Must("logs", "box"); !strings.Contains(log, "hello from box: listening on") {
		t.Errorf("the log is %q", log)
	}
	alice.Must("stop", "box")
	soon(t, time.Second, "the name to go after stop", func() bool { return status(t, web, w.URL) == http.StatusNotFound })
	if log := alice.Must("logs", "-n", "1", "box"); log != "bye\n" {
		t.Errorf("it was not stopped politely; its log ends %q", log)
	}
	alice.Must("rm", "box")
	within(t, 30*time.Second, "the container to be removed", func() bool { return len(bob.Containers()) == 0 })
}

// The first thing that a newcomer tries needs no second machine.
func TestLoneNode(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	solo := m.Peer("solo")
	module := testmesh.Tiny(t, "hello")
	w := deploy(t, solo, module)
	if w.Peer != "self" || w.State != mesh.Running || w.URL != "" {
		t.Errorf("without --peer: %+v", w)
	}
	w = deploy(t, solo, module, "--peer", "self", "--name", "again")
	if w.Peer != "self" || w.State != mesh.Running {
		t.Errorf("with --peer self: %+v", w)
	}
	refused(t, solo.Ctl("publish", "again"), "no gateway", "peers add")
}

// A refusal says who refused, by which rule, what is short, and what to do next.
func TestRefusalsExplain(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice, bob := m.Peer("alice"), m.Peer("bob")
	wasm := testmesh.Tiny(t, "hello")
	m.Lend(bob, alice, "--allow", "observe")
	ask := "peerctl peers allow " + alice.ID().String()
	refused(t, alice.Ctl("deploy", wasm, "--peer", "bob"), "bob refused", "[grant.deploy]", ask+" --allow deploy")

	bob.Must("peers", "allow", "alice", "--allow", "deploy,observe", "--cpus", "2", "--memory", "1G", "--max-workloads", "1")
	refused(t, alice.Ctl("deploy", wasm, "--peer", "bob", "--memory", "2G"),
		"bob refused", "memory 2 GiB exceeds your grant of 1 GiB", "[grant.memory]", ask+" --memory 2GiB")
	refused(t, alice.Ctl("deploy", wasm, "--peer", "bob", "--cpus", "3"), "bob refused", "[grant.cpus]", ask+" --cpus 3")

	deploy(t, alice, wasm, "--peer", "bob", "--name", "one")
	refused(t, alice.Ctl("deploy", wasm, "--peer", "bob", "--name", "two"), "bob refused", "[grant.workloads]", ask+" --max-workloads 2")
	refused(t, alice.Ctl("deploy", wasm, "--peer", "bob", "--name", "one"), "bob refused", "[grant.workloads]", "--recreate", ask+" --max-workloads 2")
	bob.Must("peers", "allow", "alice", "--max-workloads", "2") // live at once, no restart
	deploy(t, alice, wasm, "--peer", "bob", "--name", "two")

	refused(t, alice.Ctl("deploy", wasm, "--peer", "bob", "--name", "three", "--publish"), "bob", "[host.gateway]", "peers add")
	refused(t, alice.Ctl("deploy", wasm, "--peer", "carol"), `"carol"`, "peerctl peers ls")

	// Trust is directional: lending to alice gives bob nothing on her machine.
	refused(t, bob.Ctl("deploy", wasm, "--peer", "alice"), "alice refused", "[grant.deploy]")
	// And what is another's does not exist for the asker.
	carol := m.Peer("carol")
	m.Lend(bob, carol)
	if list := ps(t, carol); len(list) != 0 {
		t.Errorf("carol sees %+v", list)
	}
	id := string(find(t, alice, "one").ID)
	refused(t, carol.Ctl("stop", id, "--peer", "bob"), "no workload")
	if w := find(t, alice, "one"); w.State != mesh.Running {
		t.Errorf("after carol tried to stop it: %+v", w)
	}
}

// A deploy that does not come up says why, with the end of the log.
func TestDeployThatFails(t *testing.T) {
	t.Parallel()
	image := container(t)
	m := testmesh.New(t)
	alice, bob := m.Peer("alice"), m.Peer("bob")
	m.Lend(bob, alice)
	r := alice.Ctl("deploy", image, "--peer", "bob", "--name", "broken", "--port", "8080", "--", "--nonsense")
	refused(t, r, "broken", "flag provided but not defined: -nonsense", "peerctl logs broken")
	if w := find(t, alice, "broken"); w.State != mesh.Failed {
		t.Errorf("it is %s, want failed", w.State)
	}
	refused(t, alice.Ctl("deploy", "peercompute-test.invalid/nowhere:1", "--peer", "bob", "--port", "80"), "nowhere")
}
