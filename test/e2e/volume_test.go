package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"peercompute/pkg/mesh"
	"peercompute/pkg/testkit"
	"peercompute/test/internal/testmesh"
)

// volume is what `volume ls -o json` promises.
type volume struct {
	ID        mesh.VolumeID
	Name      string
	Owner     string
	Size      int64
	Used      int64
	State     string
	Workloads []string
}

func volumesOf(t *testing.T, n *testmesh.Node, args ...string) []volume {
	t.Helper()
	return parse[[]volume](t, n.Must(append([]string{"volume", "ls", "-o", "json"}, args...)...))
}

func inBox(n *testmesh.Node, name string, program ...string) testmesh.Result {
	return n.Ctl(append([]string{"exec", name, "--", "/program"}, program...)...)
}

// keeps requires that a file in a workload still says what was written.
func keeps(t *testing.T, n *testmesh.Node, name, file, text string) {
	t.Helper()
	if r := inBox(n, name, "read", file); r.Stdout != text {
		t.Errorf("%s holds %q (%s), want %q", file, r.Stdout, r.Stderr, text)
	}
}

// What a workload writes to its volume outlives its run, its revision, peerd and the
// workload itself. It has a hard size, and is gone when its owner says so.
func TestVolume(t *testing.T) {
	t.Parallel()
	image := actorImage(t)
	testkit.Need(t, "loopfs")
	m := testmesh.New(t)
	alice, bob := m.Peer("alice"), m.Peer("bob")
	m.Lend(bob, alice)
	bob.Must("peers", "allow", "alice", "--allow", "deploy,observe,exec", "--disk", "256M")

	first := deploy(t, alice, image, "--peer", "bob", "--name", "box", "--port", "8080", "-v", "data:/data:size=32M", "--", "serve")
	if r := inBox(alice, "box", "write", "/data/file", "kept"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	for _, part := range []string{"/data ext4 rw,nosuid,nodev,noexec"} {
		if r := inBox(alice, "box", "mounts"); !strings.Contains(r.Stdout, part) {
			t.Errorf("mounted is not %q:\n%s", part, r.Stdout)
		}
	}
	if v := volumesOf(t, alice, "--peer", "bob"); len(v) != 1 || v[0].Name != "data" || v[0].Size != 32<<20 || len(v[0].Workloads) != 1 {
		t.Fatalf("%+v", v)
	}
	image32 := filepath.Join(bob.Home, "volumes", string(volumesOf(t, bob)[0].ID)+".img")
	if st, err := os.Stat(image32); err != nil || st.Size() != 32<<20 || st.Sys().(*syscall.Stat_t).Blocks*512 < 32<<20 {
		t.Errorf("its file: %+v, %v", st, err)
	}

	// A full volume is full for its own workload, which lives on.
	if r := inBox(alice, "box", "fill", "/data/big"); !strings.Contains(r.Stdout, "no space left on device") {
		t.Errorf("filling it: %q %q", r.Stdout, r.Stderr)
	}
	keeps(t, alice, "box", "/data/file", "kept")
	if v := volumesOf(t, alice, "--peer", "bob"); len(v) != 1 || v[0].Used < 28<<20 || v[0].Used > v[0].Size {
		t.Errorf("full, and %d bytes are used: %+v", v[0].Used, v)
	}
	if used := parse[[]struct{ Volumes, Volumes_Size int64 }](t, alice.Must("stats", "box", "-o", "json")); len(used) != 1 || used[0].Volumes < 28<<20 || used[0].Volumes_Size != 32<<20 {
		t.Errorf("stats says %+v", used)
	}
	if out := alice.Must("inspect", "box"); !strings.Contains(out, "data at /data, 32 MiB (3") {
		t.Errorf("inspect does not say how full it is:\n%s", out)
	}
	if out := bob.Must("status"); !strings.Contains(out, "1, with 32 MiB of the disk set aside") {
		t.Errorf("status says\n%s", out)
	}
	if out := alice.Ctl("explain", image, "--peer", "bob", "--name", "box", "-v", "data:/data", "-v", "more:/more:size=16M").Stdout; !strings.Contains(out, "there, 32 MiB") || !strings.Contains(out, "not there: made with 16 MiB") {
		t.Errorf("explain says\n%s", out)
	}

	// An update stops the one before first, and says so.
	r := alice.Ctl("deploy", image, "--peer", "bob", "--name", "box", "--port", "8080", "--volume", "data:/srv/data", "--", "serve")
	if r.Code != 0 || !strings.Contains(r.Stderr, "one revision at a time can have a volume") {
		t.Fatalf("the update: %d %s", r.Code, r.Stderr)
	}
	keeps(t, alice, "box", "/srv/data/file", "kept")
	broken := alice.Ctl("deploy", image, "--peer", "bob", "--name", "box", "--port", "8080", "--volume", "data:/data", "--", "nonsense")
	refused(t, broken, "box stays at revision 2")
	within(t, time.Minute, "the revision before is back", func() bool { return inBox(alice, "box", "read", "/srv/data/file").Stdout == "kept" })
	alice.Must("restart", "box")
	keeps(t, alice, "box", "/srv/data/file", "kept")

	// One at a time has it, and its size is fixed.
	refused(t, alice.Ctl("deploy", image, "--peer", "bob", "--name", "other", "-v", "data:/data", "--", "hang"), "[volume.in-use]", "box")
	refused(t, alice.Ctl("deploy", image, "--peer", "bob", "--name", "box", "-v", "data:/data:size=64M", "--", "hang"), "[volume.size]")
	refused(t, alice.Ctl("volume", "rm", "data", "--peer", "bob"), "[volume.in-use]", "peerctl rm box")
	refused(t, alice.Ctl("volume", "backup", "data", "--peer", "bob"), "[volume.in-use]", "peerctl stop box")

	// It survives peerd's death, with what runs on it.
	bob.Kill()
	bob.Start()
	within(t, 30*time.Second, "bob is back", func() bool {
		return alice.Ctl("inspect", "box").Code == 0 && find(t, alice, "box").State == mesh.Running
	})
	keeps(t, alice, "box", "/srv/data/file", "kept")

	// The backup of a stopped one, and what comes of it.
	alice.Must("stop", "box")
	archive := alice.Must("volume", "backup", "data", "--peer", "bob")
	alice.Must("rm", "box")
	if v := volumesOf(t, alice, "--peer", "bob"); len(v) != 1 || len(v[0].Workloads) != 0 {
		t.Errorf("without its workload: %+v", v)
	}
	refused(t, alice.CtlIn([]byte(archive), "volume", "restore", "data", "--peer", "bob", "--size", "32M"), "[volume.name]")
	refused(t, alice.CtlIn([]byte(archive), "volume", "restore", "more", "--peer", "bob", "--size", "1G"), "[grant.disk]")
	refused(t, alice.CtlIn([]byte(archive[:len(archive)/2]), "volume", "restore", "half", "--peer", "bob", "--size", "64M"), "cut off")
	refused(t, alice.CtlIn([]byte(archive), "volume", "restore", "other", "--peer", "bob", "--size", "64M", "--digest", "sha256:"+strings.Repeat("0", 64)), "[volume.digest]")
	restored := alice.CtlIn([]byte(archive), "volume", "restore", "copy", "--peer", "bob", "--size", "64M")
	if restored.Code != 0 || !strings.Contains(restored.Stderr, "restored copy on bob: 2 files") {
		t.Fatalf("%d %s", restored.Code, restored.Stderr)
	}
	deploy(t, alice, image, "--peer", "bob", "--name", "reader", "--port", "8080", "-v", "copy:/data:ro", "--", "serve")
	keeps(t, alice, "reader", "/data/file", "kept")
	if r := inBox(alice, "reader", "write", "/data/file", "changed"); !strings.Contains(r.Stderr, "read-only file system") {
		t.Errorf("a read-only volume: %q", r.Stderr)
	}

	// Nobody else sees any of it.
	carol := m.Peer("carol")
	m.Lend(bob, carol)
	if v := volumesOf(t, carol, "--peer", "bob"); len(v) != 0 {
		t.Errorf("carol sees %+v", v)
	}
	id := string(volumesOf(t, bob)[0].ID)
	for _, ref := range []string{"copy", "data", id} {
		refused(t, carol.Ctl("volume", "backup", ref, "--peer", "bob"), "no volume is called")
		refused(t, carol.Ctl("volume", "rm", ref, "--peer", "bob"), "no volume is called")
	}
	deploy(t, carol, image, "--peer", "bob", "--name", "mine", "-v", "copy:/data:size=16M", "--", "hang")
	if v := volumesOf(t, bob); len(v) != 3 {
		t.Errorf("carol's volume of the same name is not one of its own: %+v", v)
	}
	bob.Must("peers", "allow", "carol", "--allow", "deploy,observe,exec")
	if r := inBox(carol, "mine", "read", "/data/file"); r.Code == 0 {
		t.Errorf("carol reads %q", r.Stdout)
	}

	// One whose file is lost is not replaced by an empty one.
	away := filepath.Join(bob.Home, "away.img")
	if err := os.Rename(image32, away); err != nil {
		t.Fatal(err)
	}
	refused(t, alice.Ctl("deploy", image, "--peer", "bob", "--name", "lost", "-v", "data:/data", "--restart", "no", "--", "hang"), "volume data is gone")
	if err := os.Rename(away, image32); err != nil {
		t.Errorf("an empty file was put in its place: %v", err)
	}
	alice.Ctl("rm", "-f", "lost")

	// What is removed is gone, and its room is free again.
	alice.Must("rm", "-f", "reader")
	alice.Must("volume", "rm", "copy", "data", "--peer", "bob")
	if v := volumesOf(t, bob); len(v) != 1 || v[0].Owner != "carol" {
		t.Errorf("left: %+v", v)
	}
	if _, err := os.Stat(image32); !os.IsNotExist(err) {
		t.Errorf("its file: %v", err)
	}
	deploy(t, alice, image, "--peer", "bob", "--name", "big", "-v", "data:/data:size=180M", "--", "hang")
	alice.Must("rm", "-f", "big")
	alice.Must("volume", "rm", "data", "--peer", "bob")

	// A peer that is removed takes its volumes with it.
	bob.Must("peers", "remove", "carol")
	within(t, 30*time.Second, "carol's volume is gone", func() bool { return len(volumesOf(t, bob)) == 0 })
	left, err := filepath.Glob(filepath.Join(bob.Home, "volumes", "*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left: %q, %v", left, err)
	}
	_ = first

	// What an earlier state of peerd's left there is told of.
	stray := filepath.Join(bob.Home, "volumes", "ssssssssssssssss.img")
	if err := os.WriteFile(stray, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if c := checks(t, bob)["volume files"]; c.State != "warning" || !strings.Contains(c.Detail, stray) {
		t.Errorf("the doctor says %+v", c)
	}
}
