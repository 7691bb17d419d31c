package dockertest

import (
	"context"
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
func Engine(t testing.TB) (host string) { return NewDaemon(t).Host }

// Daemon is such an engine, for tests that restart it.
type Daemon struct {
	Host string

	t     testing.TB
	args  []string
	log   *os.File
	cmd   *exec.Cmd
	ended chan struct{}
}

// NewDaemon starts one.
func NewDaemon(t testing.TB) *Daemon {
	t.Helper()
	for _, need := range []string{"docker", "root", "dockerd", "ip"} {
		testkit.Need(t, need)
	}
	dir, err := os.MkdirTemp("", "pc-engine-") // short: sockets lie in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
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
	d := &Daemon{t: t, log: log, Host: "unix://" + filepath.Join(dir, "s")}
	d.args = []string{
		"--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"), "--pidfile", filepath.Join(dir, "pid"),
		"-H", d.Host, "--bridge", bridge, "--iptables=false", "--ip-forward=false", "--ip-masq=false",
		"--containerd-namespace", bridge, "--containerd-plugins-namespace", bridge + "-plugins",
	}
	t.Cleanup(func() {
		d.Stop()
		log.Close()
	})
	d.Start()
	return d
}

// Start starts the engine and waits until it answers.
func (d *Daemon) Start() {
	d.t.Helper()
	cmd := exec.Command("dockerd", d.args...)
	cmd.Stdout, cmd.Stderr = d.log, d.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	d.cmd, d.ended = cmd, ended
	cli, err := client.NewClientWithOpts(client.WithHost(d.Host), client.WithAPIVersionNegotiation())
	if err != nil {
		d.t.Fatal(err)
	}
	defer cli.Close()
	for deadline := time.Now().Add(timeout); ; {
		if _, err = cli.Ping(context.Background()); err == nil {
			return
		}
		select {
		case <-ended:
			said, _ := os.ReadFile(d.log.Name())
			d.t.Fatalf("the second engine ended:\n%s", said[max(0, len(said)-2000):])
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("the second engine does not answer: %v", err)
		}
	}
}

// Stop ends the engine, and with it its containers, as a shutdown of the machine does.
// It does nothing to one that does not run.
func (d *Daemon) Stop() {
	d.t.Helper()
	if d.cmd == nil {
		return
	}
	cmd := d.cmd
	d.cmd = nil
	_ = cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.ended:
		return
	case <-time.After(timeout / 4):
	}
	d.t.Error("the second engine does not end")
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	<-d.ended
}
