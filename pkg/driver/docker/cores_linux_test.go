package docker_test

import (
	"fmt"
	"os"
	"regexp"
	"runtime"
	"testing"

	"peercompute/pkg/driver/docker"
	"peercompute/pkg/driver/docker/dockertest"
	"peercompute/pkg/mesh"
)

// Two peers' containers each leave a core, not the same one, and a driver that finds
// them there goes on from that. This machine's own has all.
func TestCores(t *testing.T) {
	needEngine(t)
	if runtime.NumCPU() < 2 {
		t.Skip("this machine has one core")
	}
	image, node := dockertest.Image(t, "testdata/actor"), newNode(t)
	allowed := func(d *docker.Driver, owner mesh.PeerID) string {
		w := workload(spec(image, "serve"))
		w.Owner = owner
		start(t, d, w)
		got, err := dockertest.Client(t).ContainerInspect(t.Context(), docker.ContainerName(node, w.ID))
		if err != nil {
			t.Fatal(err)
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", got.State.Pid))
		if err != nil {
			t.Fatal(err)
		}
		return string(regexp.MustCompile(`Cpus_allowed_list:\s*(\S+)`).FindSubmatch(status)[1])
	}
	own, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	all := string(regexp.MustCompile(`Cpus_allowed_list:\s*(\S+)`).FindSubmatch(own)[1])
	alice, carol := newNode(t), newNode(t)
	first := open(t, node)
	a, c := allowed(first, alice), allowed(first, carol)
	if a == c || a == all || c == all {
		t.Errorf("one peer's work may run on cores %s, another's on %s, of %s", a, c, all)
	}
	if got := allowed(first, node); got != all {
		t.Errorf("this machine's own work may run on cores %s, want %s", got, all)
	}
	later := open(t, node)
	if _, err := later.Adopt(t.Context()); err != nil {
		t.Fatal(err)
	}
	if again := allowed(later, carol); again != c {
		t.Errorf("after a restart the other peer's work may run on cores %s, was %s", again, c)
	}
}

// An engine that numbers its cores in another way is given no list of them.
func TestMiscountedCores(t *testing.T) {
	needEngine(t)
	d := open(t, newNode(t))
	if err := docker.Miscount(t.Context(), d, 1<<10); err != nil {
		t.Fatal(err)
	}
	image := dockertest.Image(t, "testdata/actor")
	for range 2 {
		start(t, d, workload(spec(image, "serve")))
	}
}
