package fault

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"peercompute/pkg/mesh"
	"peercompute/pkg/testkit"
	"peercompute/test/internal/testmesh"
)

// smallDisk mounts a file system of its own at dir.
func smallDisk(t *testing.T, dir, size string) {
	t.Helper()
	testkit.Need(t, "loopfs")
	image := filepath.Join(t.TempDir(), "disk")
	for _, c := range [][]string{
		{"truncate", "-s", size, image},
		{"mkfs.ext4", "-q", "-m", "0", image}, // nothing kept for root
		{"mount", "-o", "loop", image, dir},
	} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", c, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v\n%s", err, out)
		}
	})
}

// fill leaves about so many bytes free, and returns what frees the disk again.
func fill(t *testing.T, dir string, leave int) (empty func()) {
	t.Helper()
	name := filepath.Join(dir, "filler")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block, size := make([]byte, 4096), int64(0)
	for {
		n, err := f.Write(block)
		size += int64(n)
		if errors.Is(err, syscall.ENOSPC) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(f.Truncate(size-int64(leave)), f.Sync()); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
}

// The disk of a state file runs full under a writer: it is told so and goes on, and
// when there is room again so do the changes. Killed in between, it has lost nothing.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	smallDisk(t, dir, "8M")
	path := filepath.Join(dir, "state.db")
	for round := range 4 {
		empty := fill(t, dir, 64<<10)
		out := &tally{}
		c := writer(t, nil, path)
		c.Stdout = out
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		within(t, time.Minute, "changes refused for want of room", func() bool { return out.count("full ") > 0 })
		if round%2 == 0 { // it dies while the disk is full
			if err := c.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = c.Wait()
			if err := holds(path, parse(t, out.bytes())); err != nil {
				t.Fatalf("killed on a full disk: %v", err)
			}
			empty()
			if err := os.Remove(path); err != nil { // the next round must grow again
				t.Fatal(err)
			}
			continue
		}
		empty()
		had := out.count("\n") - out.count("full ")
		within(t, time.Minute, "changes again", func() bool { return out.count("\n")-out.count("full ") > had+20 })
		if err := c.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = c.Wait()
		s := parse(t, out.bytes())
		if s.failed {
			t.Fatal("the store gave up for want of room")
		}
		if err := holds(path, s); err != nil {
			t.Fatalf("after room was made: %v", err)
		}
		t.Logf("%d changes acknowledged, %d refused while the disk was full, 0 lost", len(s.acked), s.full)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// A whole peerd on a full disk refuses what it cannot keep, in words, answers
// questions, and takes work again when there is room; also when it is killed and
// started while the disk is full.
func TestPeerdOnAFullDisk(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "loopfs")
	m := testmesh.New(t)
	alice, bob := m.Peer("alice"), m.NewPeer("bob")
	if err := os.Mkdir(bob.Home, 0o700); err != nil {
		t.Fatal(err)
	}
	smallDisk(t, bob.Home, "24M")
	t.Cleanup(func() { bob.Stop() }) // before its disk goes
	bob.Start()
	m.Lend(bob, alice)
	deploy := func(name string) testmesh.Result {
		return alice.Ctl("deploy", testmesh.Tiny(t, name), "--peer", "bob", "--name", name)
	}
	if r := deploy("first"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	empty := fill(t, bob.Home, 0)
	refused := 0
	for i := range 20 { // what little room is left in its file is used up first
		if r := deploy(strings.Repeat("x", i+1)); r.Code != 0 {
			refused++
			if !strings.Contains(r.Stderr, "full") {
				t.Errorf("the refusal does not say why:\n%s", r.Stderr)
			}
		}
	}
	if refused == 0 {
		t.Fatal("nothing was refused on a full disk")
	}
	for _, args := range [][]string{{"ps"}, {"status"}, {"peers", "ls"}, {"logs", "first"}} {
		if r := bob.Ctl(args...); r.Code != 0 {
			t.Errorf("peerctl %v on a full disk: %s", args, r.Stderr)
		}
	}
	if r := alice.Ctl("ps"); r.Code != 0 || !strings.Contains(r.Stdout, "first") {
		t.Errorf("alice sees: %s%s", r.Stdout, r.Stderr)
	}
	kept := list(t, bob)
	bob.Kill()
	bob.Start() // still full
	if got := list(t, bob); len(got) != len(kept) {
		t.Errorf("after kill -9 on a full disk bob lists %v, want %v", got, kept)
	}
	empty()
	within(t, time.Minute, "work taken again", func() bool { return deploy("last").Code == 0 })
	if got := list(t, bob); len(got) != len(kept)+1 {
		t.Errorf("in the end bob lists %v, want one more than %v", got, kept)
	}
}

// list is the workloads of a node by name.
func list(t *testing.T, n *testmesh.Node) map[string]mesh.WorkloadID {
	t.Helper()
	c := n.Client()
	defer c.Close()
	all, err := c.Workloads(t.Context(), "self")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]mesh.WorkloadID{}
	for _, w := range all {
		out[w.Name] = w.ID
	}
	return out
}
