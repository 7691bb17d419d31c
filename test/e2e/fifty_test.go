package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"peercompute/pkg/driver/docker/dockertest"
	"peercompute/pkg/mesh"
	"peercompute/pkg/testkit"
	"peercompute/test/internal/testmesh"
)

// Fifty containers that are asked for at the same moment are all up, and answer. One
// more than was granted is refused. Removed, they leave nothing: no container, network
// namespace, mount or thread of the daemon's.
func TestFiftyAtOnce(t *testing.T) {
	t.Parallel()
	for _, need := range []string{"docker", "root"} {
		testkit.Need(t, need)
	}
	engine := dockertest.NewDaemon(t) // its own: what is counted is nobody else's
	program, err := os.ReadFile(dockertest.Program(t, filepath.Join(testmesh.ModuleRoot(t), "examples", "hello-container")))
	if err != nil {
		t.Fatal(err)
	}
	cli := dockertest.ClientOf(t, engine.Host)
	image, _ := dockertest.LoadInto(t, cli, "/program", dockertest.Layer(t, map[string][]byte{"program": program}))
	m := testmesh.New(t)
	alice, bob := m.Peer("alice"), withEngine(t, m, "bob", engine.Host)
	m.Lend(bob, alice)
	deploy(t, alice, image, "--peer", "bob", "--name", "first", "--port", "8080")
	alice.Must("rm", "-f", "first")
	within(t, 20*time.Second, "the first to be gone", func() bool { return len(boxes(t, cli, bob)) == 0 })
	mounts, files := mountsOf(t, engine), filesOf(t, bob)

	const n = 50 // that Lend grants
	var all errgroup.Group
	for i := range n {
		all.Go(func() error {
			r := alice.Ctl("deploy", image, "--peer", "bob", "--name", fmt.Sprint("box-", i), "--port", "8080", "--memory", "32M")
			if r.Code != 0 {
				return fmt.Errorf("box-%d: %s", i, r.Stderr)
			}
			return nil
		})
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
	refused(t, alice.Ctl("deploy", image, "--peer", "bob", "--name", "more", "--port", "8080", "--memory", "32M"), "bob refused", "[grant.workloads]", "50")
	running := map[mesh.WorkloadID]bool{}
	for _, w := range ps(t, alice) {
		if w.State != mesh.Running {
			t.Errorf("%s is %s", w.Name, w.State)
		}
		running[w.ID] = true
	}
	made := boxes(t, cli, bob)
	if len(running) != n || len(made) != n {
		t.Errorf("%d run in %d containers, want %d", len(running), len(made), n)
	}
	for i := range n {
		all.Go(func() error {
			if r := alice.Ctl("rm", "-f", fmt.Sprint("box-", i)); r.Code != 0 {
				return fmt.Errorf("box-%d: %s", i, r.Stderr)
			}
			return nil
		})
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
	within(t, time.Minute, "the containers to be gone", func() bool { return len(boxes(t, cli, bob)) == 0 })
	if left := ps(t, alice); len(left) != 0 {
		t.Errorf("alice still lists %v", left)
	}
	if now := mountsOf(t, engine); now > mounts {
		t.Errorf("%d mounts of the engine's, %d before", now, mounts)
	}
	within(t, 20*time.Second, "peerd's files to be closed", func() bool { return filesOf(t, bob) <= files+8 }) // its idle connections
}

// mountsOf counts the mounts below an engine's directories.
func mountsOf(t *testing.T, d *dockertest.Daemon) (n int) {
	t.Helper()
	all, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(all), filepath.Dir(strings.TrimPrefix(d.Host, "unix://"))+"/")
}

// filesOf counts what a node has open: connections, namespaces, files.
func filesOf(t *testing.T, n *testmesh.Node) int {
	t.Helper()
	all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", n.PID()))
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}
