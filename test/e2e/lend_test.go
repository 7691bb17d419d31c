package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"peercompute/pkg/mesh"
	"peercompute/pkg/testkit"
	"peercompute/test/internal/testmesh"
)

// A grant is kept to over the network: which modules, how much fuel a day, and the
// refusals say what is short, when it opens again, and what to ask for.
func TestGrantIsKeptTo(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice, bob := m.Peer("alice"), m.Peer("bob")
	m.Lend(bob, alice)
	hello := testmesh.Tiny(t, "hello")

	bob.Must("peers", "allow", "alice", "--images", "nginx")
	refused(t, alice.Ctl("deploy", hello, "--peer", "bob"), "bob refused", "grant.images", "--images nginx,sha256:")
	bob.Must("peers", "allow", "alice", "--images", "wasm")
	t.Run("container", func(t *testing.T) {
		testkit.Need(t, "docker") // without an engine that is what the refusal says
		refused(t, alice.Ctl("deploy", "nginx:1.29", "--peer", "bob", "--port", "80"), "grant.images")
	})

	// Fuel is set aside for a job that runs, and given back as far as it was not burnt.
	bob.Must("peers", "allow", "alice", "--fuel-per-day", "3G")
	for range 5 { // each may burn 2G and burns next to nothing
		if r := alice.Ctl("run", hello, "--peer", "bob", "--fuel", "2G"); r.Code != 0 {
			t.Fatalf("status %d: %s", r.Code, r.Stderr)
		}
	}
	refused(t, alice.Ctl("run", hello, "--peer", "bob", "--fuel", "4G"), "grant.fuel-per-day", "--fuel-per-day 4")
	spin := testmesh.Tiny(t, "")
	if r := alice.Ctl("run", spin, "--peer", "bob", "--fuel", "2G", "--timeout", "60s"); r.Code == 0 {
		t.Fatal("a loop ended")
	}
	refused(t, alice.Ctl("run", spin, "--peer", "bob", "--fuel", "2G"), "grant.fuel-per-day", "opens again 20", "00:00 UTC")
	if out := bob.Must("peers", "show", "alice", "-o", "json"); !strings.Contains(out, `"fuel_today": 20`) {
		t.Errorf("bob does not show what was burnt:\n%s", out)
	}
	bob.Kill()
	bob.Start() // what was burnt is not forgotten
	refused(t, alice.Ctl("run", spin, "--peer", "bob", "--fuel", "2G"), "grant.fuel-per-day")
	bob.Must("peers", "allow", "alice", "--fuel-per-day", "100G")
	if r := alice.Ctl("run", hello, "--peer", "bob", "--fuel", "2G"); r.Code != 0 {
		t.Errorf("with more fuel: %s", r.Stderr)
	}
}

// A service that has burnt its owner's fuel of the day is paused, says so, and goes
// on when there is more.
func TestServiceWithoutFuelIsPaused(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice, bob, gw := m.Trio()
	web := m.Web(gw)
	bob.Must("peers", "allow", "alice", "--fuel-per-day", "1G")
	w := deploy(t, alice, testmesh.Tiny(t, ""), "--peer", "bob", "--name", "spin", "--publish", "--fuel", "900M", "--timeout", "60s")
	for range 2 { // each request burns all that one may
		if code := status(t, web, w.URL); code != http.StatusInternalServerError {
			t.Fatalf("a loop answers %d, want 500: out of fuel", code)
		}
	}
	within(t, 30*time.Second, "the service to be paused", func() bool { return find(t, alice, "spin").State == mesh.Paused })
	paused(t, web, w.URL)
	if out := alice.Must("ps"); !strings.Contains(out, "fuel of today is used up; it goes on 20") {
		t.Errorf("ps does not say why:\n%s", out)
	}
	bob.Must("peers", "allow", "alice", "--fuel-per-day", "50G")
	within(t, 30*time.Second, "the service to run again", func() bool { return find(t, alice, "spin").State == mesh.Running })
}

// paused requires that visitors hear that they may come again.
func paused(t *testing.T, web *http.Client, url string) {
	t.Helper()
	within(t, 30*time.Second, "503 with Retry-After", func() bool {
		res, err := web.Get(url)
		if err != nil {
			return false
		}
		res.Body.Close()
		after, err := strconv.Atoi(res.Header.Get("Retry-After"))
		return res.StatusCode == http.StatusServiceUnavailable && err == nil && after > 60
	})
}

// When a grant ends, its peer is denied at once, and what it runs is held; renewed,
// all of it comes back.
func TestGrantEnds(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice, bob, gw := m.Trio()
	web := m.Web(gw)
	w := deploy(t, alice, testmesh.Tiny(t, "hello"), "--peer", "bob", "--name", "hello", "--publish")
	bob.Must("peers", "allow", "alice", "--until", "2s")
	within(t, 30*time.Second, "the guest to be held", func() bool { return find(t, bob, "hello").State == mesh.Paused })
	within(t, 30*time.Second, "404", func() bool { return status(t, web, w.URL) == http.StatusNotFound })
	refused(t, alice.Ctl("deploy", testmesh.Tiny(t, "again"), "--peer", "bob"), "bob")
	if out := bob.Must("peers", "ls"); !strings.Contains(out, "ENDED") {
		t.Errorf("peers ls does not say so:\n%s", out)
	}
	bob.Kill()
	bob.Start()
	refused(t, alice.Ctl("deploy", testmesh.Tiny(t, "again"), "--peer", "bob"), "bob")
	if s := find(t, bob, "hello").State; s != mesh.Paused && s != mesh.Pending {
		t.Errorf("after a restart the guest is %s", s)
	}
	bob.Must("peers", "allow", "alice", "--until", "30d")
	within(t, 30*time.Second, "the guest to run again", func() bool { return status(t, web, w.URL) == http.StatusOK })
	within(t, 30*time.Second, "alice to be let in", func() bool {
		return alice.Ctl("deploy", testmesh.Tiny(t, "again"), "--peer", "bob", "--name", "again").Code == 0
	})
}

// Outside its hours a machine refuses with the time it opens, and does with what
// runs what its owner said, across kill -9; its owner's own work is none of it.
func TestLendHours(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice, bob, gw := m.Trio()
	web := m.Web(gw)
	hello := testmesh.Tiny(t, "hello")
	w := deploy(t, alice, hello, "--peer", "bob", "--name", "lent", "--publish")
	deploy(t, bob, hello, "--peer", "self", "--name", "own")

	// Hours that begin in two hours and end an hour later: closed now.
	from := time.Now().Add(2 * time.Hour)
	hours := fmt.Sprintf("%s-%s", from.Format("15:04"), from.Add(time.Hour).Format("15:04"))
	bob.Must("lend", "--when", hours, "--then", "keep")
	opens := "lends from " + from.Format("15:04")
	refused(t, alice.Ctl("deploy", hello, "--peer", "bob", "--name", "more"), "bob refused", "host.schedule", opens, "until 20")
	if code := status(t, web, w.URL); code != http.StatusOK {
		t.Errorf("running work that is to be kept answers %d", code)
	}
	bob.Must("lend", "--then", "stop")
	within(t, 30*time.Second, "lent work to be held", func() bool { return find(t, alice, "lent").State == mesh.Paused })
	paused(t, web, w.URL)
	if out := alice.Must("ps"); !strings.Contains(out, "paused: "+opens) {
		t.Errorf("ps does not say why:\n%s", out)
	}
	if out := bob.Must("status"); !strings.Contains(out, "paused: "+opens) {
		t.Errorf("status does not say so:\n%s", out)
	}
	for range 2 {
		if s := find(t, bob, "own").State; s != mesh.Running {
			t.Errorf("the owner's own work is %s", s)
		}
		deploy(t, bob, hello, "--peer", "self", "--name", "extra")
		bob.Must("rm", "-f", "extra")
		bob.Kill()
		bob.Start() // neither the hours nor what is wanted is lost
		within(t, 30*time.Second, "lent work to be held again", func() bool { return find(t, bob, "lent").State == mesh.Paused })
		within(t, 30*time.Second, "own work to run again", func() bool { return find(t, bob, "own").State == mesh.Running })
	}
	bob.Must("lend", "--when", "always")
	within(t, 30*time.Second, "lent work to run again", func() bool { return status(t, web, w.URL) == http.StatusOK })
	deploy(t, alice, hello, "--peer", "bob", "--name", "more")
}

// A container is frozen while lending is paused, stays frozen over kill -9, and
// goes on as the same run.
func TestPauseFreezesContainers(t *testing.T) {
	t.Parallel()
	image := container(t)
	m := testmesh.New(t)
	alice, bob, gw := m.Trio()
	web := m.Web(gw)
	w := deploy(t, alice, image, "--peer", "bob", "--name", "box", "--port", "8080", "--publish")
	before := startedAt(t, w)
	bob.Must("pause", "2h", "--then", "pause")
	within(t, 30*time.Second, "the container to be frozen", func() bool { return find(t, bob, "box").State == mesh.Paused })
	paused(t, web, w.URL)
	bob.Kill()
	bob.Start()
	within(t, 30*time.Second, "the container to be found frozen", func() bool { return find(t, bob, "box").State == mesh.Paused })
	bob.Must("resume")
	within(t, 30*time.Second, "the container to go on", func() bool { return status(t, web, w.URL) == http.StatusOK })
	if after := startedAt(t, w); after != before {
		t.Errorf("it was started anew at %s, before at %s", after, before)
	}
}

// startedAt is when the engine started the container of a workload.
func startedAt(t *testing.T, w work) string {
	t.Helper()
	testkit.Need(t, "docker")
	id, err := exec.Command("docker", "ps", "-aq", "--filter", "label=peercompute.workload="+string(w.ID)).Output()
	if err != nil || len(bytes.Fields(id)) != 1 {
		t.Fatalf("the containers of %s are %q, %v", w.ID, id, err)
	}
	at, err := exec.Command("docker", "inspect", "-f", "{{.State.StartedAt}}", string(bytes.TrimSpace(id))).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimSpace(at))
}
