package dockertest

import (
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/client"

	"peercompute/pkg/testkit"
)

// Engine starts a second engine, which has no images, and returns its address
// ("unix://…"). It shares nothing with the first: it has directories, a containerd
// and a bridge of its own, and changes no rules of the firewall. It goes with the
// test.
func Engine(t testing.TB) (host string) {
	t.Helper()
	for _, need := range []string{"docker", "root", "dockerd", "ip"} {
		testkit.Need(t, need)
	}
	dir, err := os.MkdirTemp("", "pc-engine-") // short: sockets lie in it
	if err != nil {
		t.Fatal(err)
	}
	bridge := "pct" + strings.ToLower(rand.Text()[:8])
	ip := func(args ...string) error { return exec.Command("ip", args...).Run() }
	if err := ip("link", "add", bridge, "type", "bridge"); err != nil {
		t.Fatalf("cannot make a bridge: %v", err)
	}
	t.Cleanup(func() {
		if err := ip("link", "del", bridge); err != nil {
			t.Errorf("cannot remove the bridge %s: %v", bridge, err)
		}
	})
	if err := ip("addr", "add", "169.254.254.1/30", "dev", bridge); err != nil {
		t.Fatalf("cannot give the bridge an address: %v", err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	host = "unix://" + filepath.Join(dir, "s")
	cmd := exec.Command("dockerd",
		"--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"), "--pidfile", filepath.Join(dir, "pid"),
		"-H", host, "--bridge", bridge, "--iptables=false", "--ip-forward=false", "--ip-masq=false",
		"--containerd-namespace", bridge, "--containerd-plugins-namespace", bridge+"-plugins")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		defer os.RemoveAll(dir)
		defer log.Close()
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
			return
		case <-time.After(timeout / 4):
		}
		t.Error("the second engine does not end")
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended
	})
	cli, err := client.NewClientWithOpts(client.WithHost(host), client.WithAPIVersionNegotiation())
	if err != nil {
		t.Fatal(err)
	}
	defer cli.Close()
	for deadline := time.Now().Add(timeout); ; {
		if _, err = cli.Ping(t.Context()); err == nil {
			return host
		}
		select {
		case <-ended:
			said, _ := os.ReadFile(log.Name())
			t.Fatalf("the second engine ended:\n%s", said[max(0, len(said)-2000):])
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("the second engine does not answer: %v", err)
		}
	}
}
