package fault

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"peercompute/pkg/driver/docker/dockertest"
	"peercompute/pkg/testkit"
	"peercompute/test/internal/testmesh"
)

// While the disk of peerd's home is full its containers go on and are reached, also
// when peerd is killed and finds them again; when there is room it takes and ends work
// as before.
func TestContainersOnAFullDisk(t *testing.T) {
	t.Parallel()
	for _, need := range []string{"docker", "root", "loopfs"} {
		testkit.Need(t, need)
	}
	image := dockertest.Image(t, filepath.Join(testmesh.ModuleRoot(t), "examples", "hello-container"))
	m := testmesh.New(t)
	alice, bob, gw := m.Peer("alice"), m.NewPeer("bob"), m.Gateway("gw")
	if err := os.Mkdir(bob.Home, 0o700); err != nil {
		t.Fatal(err)
	}
	smallDisk(t, bob.Home, "24M")
	t.Cleanup(func() { bob.Stop() }) // before its disk goes
	bob.Start()
	m.Lend(bob, alice)
	m.Route(bob, gw)
	deploy := func(name string) testmesh.Result {
		return alice.Ctl("deploy", image, "--peer", "bob", "--name", name, "--port", "8080", "--publish")
	}
	first := deploy("first")
	if first.Code != 0 {
		t.Fatal(first.Stderr)
	}
	web, url := m.Web(gw), strings.TrimSpace(first.Stdout)
	visit := func() bool {
		res, err := web.Get(url)
		if err != nil {
			t.Log(err)
			return false
		}
		defer res.Body.Close()
		_, err = io.Copy(io.Discard, res.Body)
		return err == nil && res.StatusCode == http.StatusOK
	}
	id := list(t, bob)["first"]
	was := bob.Containers()[id]

	empty := fill(t, bob.Home, 0)
	refused := 0
	for i := range 20 { // what little room is left in its file is used up first
		if r := deploy(strings.Repeat("x", i+1)); r.Code != 0 {
			if refused++; !strings.Contains(r.Stderr, "full") {
				t.Errorf("the refusal does not say why:\n%s", r.Stderr)
			}
			break
		}
	}
	if refused == 0 {
		t.Fatal("nothing was refused on a full disk")
	}
	for i := range 50 {
		if !visit() {
			t.Fatalf("visitor %d got no answer while the disk is full", i)
		}
	}
	if got := alice.Must("logs", "first"); !strings.Contains(got, "listening") {
		t.Errorf("its log says %q", got)
	}
	if out := alice.Ctl("ps"); out.Code != 0 || !strings.Contains(out.Stdout, "first") {
		t.Errorf("alice sees: %s%s", out.Stdout, out.Stderr)
	}
	bob.Kill()
	bob.Start() // still full
	within(t, time.Minute, "visits after kill -9", visit)
	if now := bob.Containers()[id]; now != was || now.State != "running" {
		t.Errorf("kill -9 on a full disk changed the container: %v, was %v", now, was)
	}

	empty()
	within(t, time.Minute, "work taken again", func() bool { return deploy("last").Code == 0 })
	if !visit() {
		t.Error("the first answers no more")
	}
	alice.Must("rm", "-f", "first")
	within(t, time.Minute, "the first to be gone", func() bool { _, there := bob.Containers()[id]; return !there })
	if _, there := list(t, bob)["first"]; there {
		t.Error("it is listed still")
	}
	for name, w := range list(t, bob) {
		if c := bob.Containers()[w]; c.State != "running" {
			t.Errorf("%s does not run in the end: %v", name, c)
		}
		alice.Must("rm", "-f", name)
	}
	within(t, time.Minute, "all to be gone", func() bool { return len(bob.Containers()) == 0 })
}
