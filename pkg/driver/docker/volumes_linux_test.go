package docker_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/volume"

	"peercompute/pkg/driver"
	"peercompute/pkg/driver/docker"
	"peercompute/pkg/driver/docker/dockertest"
	"peercompute/pkg/mesh"
	"peercompute/pkg/testkit"
)

// shelf is the volumes of a node, by owner.
type shelf map[mesh.PeerID][]driver.Volume

func openWith(t *testing.T, node mesh.PeerID, dir string, s shelf) *docker.Driver {
	t.Helper()
	host, runtime := dockertest.Chosen()
	d, err := docker.New(docker.Config{
		Node: node, Host: host, Runtime: runtime, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Volumes: dir,
		OwnersVolumes: func(owner mesh.PeerID) ([]driver.Volume, error) { return s[owner], nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// withVolume is a workload of owner's that has one volume at /data.
func withVolume(owner mesh.PeerID, id mesh.WorkloadID, image, name string, args ...string) mesh.Workload {
	w := mesh.Workload{ID: id, Owner: owner, Spec: spec(image, args...)}
	w.Spec.Volumes = []mesh.VolumeMount{{Name: name, Target: "/data"}}
	return w
}

// exited waits for the end of a task, and requires that its program was content.
func exited(t *testing.T, task driver.Task) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if x, err := task.Wait(ctx); err != nil || x.Code != 0 {
		t.Fatalf("%+v, %v", x, err)
	}
}

// loops lists the loop devices that are made of files in dir.
func loops(dir string) (out []string) {
	all, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, f := range all {
		if b, err := os.ReadFile(f); err == nil && strings.HasPrefix(string(b), dir+"/") {
			out = append(out, string(b))
		}
	}
	return out
}

// A volume is its owner's alone, has one run at a time, is found again by another
// driver, and leaves nothing behind at the engine.
func TestVolumes(t *testing.T) {
	needEngine(t)
	testkit.Need(t, "loopfs")
	image := dockertest.Image(t, "testdata/actor")
	node, owner, other := newNode(t), newNode(t), newNode(t)
	dir := t.TempDir()
	s := shelf{
		owner: {{ID: "vvvvvvvvvvvvvvvv", Name: "data", Size: 32 << 20, User: 0x70000042}},
		other: {{ID: "wwwwwwwwwwwwwwww", Name: "theirs", Size: 32 << 20, User: 0x70000043}},
	}
	d := openWith(t, node, dir, s)
	cleaner := d // which is closed last
	cli := dockertest.Client(t)
	started := func(w mesh.Workload) (driver.Task, error) {
		t.Helper()
		if _, err := d.Prepare(t.Context(), w, func(mesh.Progress) {}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := cleaner.Remove(context.WithoutCancel(t.Context()), w.ID); err != nil {
				t.Error(err)
			}
		})
		return d.Start(t.Context(), w)
	}
	first, err := started(withVolume(owner, "aaaaaaaaaaaaaaaa", image, "data", "write", "/data/file", "kept"))
	if err != nil {
		t.Fatal(err)
	}
	exited(t, first)
	if _, err := started(withVolume(other, "bbbbbbbbbbbbbbbb", image, "data", "hang")); mesh.KindOf(err) != mesh.NotFound {
		t.Errorf("another owner's volume by its name: %v", err)
	}
	reader, err := started(withVolume(owner, "cccccccccccccccc", image, "data", "read", "/data/file"))
	if err != nil {
		t.Fatal(err)
	}
	exited(t, reader)
	hangs, err := started(withVolume(owner, "dddddddddddddddd", image, "data", "hang"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := started(withVolume(owner, "eeeeeeeeeeeeeeee", image, "data", "hang")); mesh.KindOf(err) != mesh.Unavailable {
		t.Errorf("a second run on it: %v", err)
	}
	if err := d.RemoveVolume(t.Context(), "vvvvvvvvvvvvvvvv"); mesh.KindOf(err) != mesh.Unavailable {
		t.Errorf("removed while it is in use: %v", err)
	}

	// Another driver, as after a restart, finds the run; one whose owner has not got the
	// volume any more is ended.
	d = openWith(t, node, dir, s)
	tasks, err := d.Adopt(t.Context())
	if err != nil || !slices.ContainsFunc(tasks, func(x driver.Task) bool { return x.ID() == hangs.ID() }) {
		t.Fatalf("adopted %v, %v", tasks, err)
	}
	d = openWith(t, node, dir, shelf{owner: s[other], other: s[owner]})
	tasks, err = d.Adopt(t.Context())
	if err != nil || slices.ContainsFunc(tasks, func(x driver.Task) bool { return x.ID() == hangs.ID() }) {
		t.Errorf("adopted with another owner's volume: %v, %v", tasks, err)
	}
	if got := loops(dir); len(got) != 0 {
		t.Errorf("loop devices are left: %q", got)
	}
	d = openWith(t, node, dir, s)

	// What the engine has under the name already is never what is mounted.
	w := withVolume(owner, "ffffffffffffffff", image, "data", "hang")
	name := "peercompute-" + string(w.ID) + "-" + node.String()[len(node.String())-8:] + "-vvvvvvvvvvvvvvvv"
	if _, err := cli.VolumeCreate(t.Context(), volume.CreateOptions{Name: name, Driver: "local", DriverOpts: map[string]string{"type": "none", "o": "bind", "device": "/"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := started(w); mesh.KindOf(err) != mesh.Unsupported || !strings.Contains(err.Error(), "volume other than") {
		t.Errorf("a volume that is the host's root: %v", err)
	}
	if err := cli.VolumeRemove(t.Context(), name, false); err != nil {
		t.Error(err)
	}
	if list, err := cli.ContainerList(t.Context(), container.ListOptions{All: true}); err != nil || slices.ContainsFunc(list, func(c container.Summary) bool { return c.Labels["peercompute.workload"] == string(w.ID) }) {
		t.Errorf("its container is left, %v", err)
	}

	// One that was there is never made anew.
	lost := shelf{owner: {{ID: "xxxxxxxxxxxxxxxx", Name: "lost", Size: 32 << 20, User: 0x70000042, Made: true}}}
	d = openWith(t, node, dir, lost)
	if _, err := started(withVolume(owner, "hhhhhhhhhhhhhhhh", image, "lost", "hang")); err == nil || mesh.AsError(err).Rule != "volume.lost" {
		t.Errorf("a volume whose file is gone: %v", err)
	}
	d = openWith(t, node, dir, s)

	// An image's own volume below ours would hide what is written there.
	if err := d.RemoveVolume(t.Context(), "vvvvvvvvvvvvvvvv"); err != nil {
		t.Errorf("removing it: %v", err)
	}
	for _, id := range []mesh.WorkloadID{"aaaaaaaaaaaaaaaa", "cccccccccccccccc"} {
		if err := d.Remove(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	left, err := cli.VolumeList(t.Context(), volume.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range left.Volumes {
		if v.Labels["peercompute.node"] == node.String() {
			t.Errorf("the engine has %s still", v.Name)
		}
	}
	if files, _ := os.ReadDir(dir); len(files) != 0 {
		t.Errorf("files are left: %v", files)
	}
}

// What a crash left at the engine of a start is cleared away.
func TestAdoptClearsEngineVolumes(t *testing.T) {
	needEngine(t)
	node := newNode(t)
	cli := dockertest.Client(t)
	name := "peercompute-test-" + node.String()[20:]
	_, err := cli.VolumeCreate(t.Context(), volume.CreateOptions{Name: name, Driver: "local", Labels: map[string]string{"peercompute.node": node.String(), "peercompute.workload": "aaaaaaaaaaaaaaaa"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openWith(t, node, t.TempDir(), nil).Adopt(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := cli.VolumeInspect(t.Context(), name); !errdefs.IsNotFound(err) {
		t.Errorf("it is still there: %v", err)
		_ = cli.VolumeRemove(t.Context(), name, true)
	}
}
