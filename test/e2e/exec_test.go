package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"peercompute/pkg/driver/docker/dockertest"
	"peercompute/pkg/testkit"
	"peercompute/test/internal/testmesh"
)

// actor is an image of the program that plays what the driver's tests need.
func actorImage(t *testing.T) string {
	t.Helper()
	testkit.Need(t, "docker")
	return dockertest.Image(t, filepath.Join(testmesh.ModuleRoot(t), "pkg", "driver", "docker", "testdata", "actor"))
}

func TestExec(t *testing.T) {
	t.Parallel()
	image := actorImage(t)
	m := testmesh.New(t)
	alice, bob := m.Peer("alice"), m.Peer("bob")
	m.Lend(bob, alice)
	deploy(t, alice, image, "--peer", "bob", "--name", "box", "--port", "8080", "--", "serve")
	deploy(t, alice, testmesh.Tiny(t, "hello"), "--peer", "bob", "--name", "guest")

	// To deploy is not to enter: that is a right of its own.
	r := alice.Ctl("exec", "box", "--", "/program", "copy")
	refused(t, r, "bob refused", "[grant.exec]", "--allow deploy,exec")
	if r.Code != 125 {
		t.Errorf("exit %d, want 125", r.Code)
	}
	bob.Must("peers", "allow", "alice", "--allow", "deploy,observe,exec")

	r = alice.CtlIn([]byte("four score"), "exec", "-i", "box", "--", "/program", "copy", "7", "s3cret")
	if r.Code != 7 || r.Stdout != "four score" || r.Stderr != "10 bytes\n" {
		t.Errorf("status %d, stdout %q, stderr %q", r.Code, r.Stdout, r.Stderr)
	}
	big := repeat("0123456789abcdef", 3<<20)
	if r := alice.CtlIn(big, "exec", "-i", "box", "--", "/program", "copy"); r.Code != 0 || r.Stdout != string(big) {
		t.Errorf("3 MiB: status %d, %d bytes", r.Code, len(r.Stdout))
	}
	// The owner of the machine needs no grant.
	if r := bob.Ctl("exec", "box", "--", "/program", "print", "2", "3"); r.Code != 3 || r.Stdout != "line 1\nline 2\n" {
		t.Errorf("locally: status %d, stdout %q, stderr %q", r.Code, r.Stdout, r.Stderr)
	}
	refused(t, alice.Ctl("exec", "guest", "--", "sh"), "no program can be run inside a WASM guest")
	refused(t, bob.Ctl("exec", "guest", "--", "sh"), "no program can be run inside a WASM guest")

	log := bob.Must("audit", "--peer", "alice", "-o", "json")
	if !strings.Contains(log, `exec`) || !strings.Contains(log, `with 3 arguments`) || strings.Contains(log, "s3cret") {
		t.Errorf("the audit log:\n%s", log)
	}

	left := func() string {
		r := bob.Ctl("exec", "box", "--", "/program", "processes")
		return strings.TrimSpace(r.Stdout)
	}
	in, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer w.Close()
	hang := func(part string) *background {
		t.Helper()
		b := begin(t, alice, in, "exec", "-i", "box", "--", "/program", part)
		if b.line(t) != "ready" {
			t.Fatal("it does not run")
		}
		return b
	}
	// peerctl is killed: what it ran is, too.
	b := hang("spawn")
	_ = b.cmd.Process.Signal(syscall.SIGKILL)
	b.wait(t, 20*time.Second)
	within(t, 30*time.Second, "the program of a peerctl that was killed to end", func() bool { return left() == "2" })
	// The right is taken back.
	b = hang("linger")
	began := time.Now()
	bob.Must("peers", "allow", "alice", "--allow", "deploy,observe")
	if code := b.wait(t, 20*time.Second); code != 125 {
		t.Errorf("exit %d when the right is taken back, want 125", code)
	}
	t.Logf("a program ended %s after its right was taken back", time.Since(began).Round(time.Millisecond))
	within(t, 30*time.Second, "the program of one who may not any more to end", func() bool { return left() == "2" })
	// The workload is stopped.
	bob.Must("peers", "allow", "alice", "--allow", "deploy,observe,exec")
	b = hang("linger")
	alice.Must("stop", "box")
	if code := b.wait(t, 20*time.Second); code != 125 {
		t.Errorf("exit %d when the workload stops, want 125: %s", code, b.errs)
	}
	refused(t, alice.Ctl("exec", "box", "--", "/program"), "not running")
}
