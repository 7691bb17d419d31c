package dockertest

import (
	"context"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
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
	dir   string // all of its files and mounts
	name  string // of its bridge and its containerd namespace
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
	d := &Daemon{t: t, dir: dir, name: bridge, log: log, Host: "unix://" + filepath.Join(dir, "s")}
	d.args = []string{
		"--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"), "--pidfile", filepath.Join(dir, "pid"),
		"-H", d.Host, "--bridge", bridge, "--iptables=false", "--ip-forward=false", "--ip-masq=false",
		"--containerd-namespace", bridge, "--containerd-plugins-namespace", bridge + "-plugins",
	}
	t.Cleanup(func() {
		d.Stop()
		d.sweep()
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

// Kill ends the engine and its containerd as a crash does. Its containers run on, and its
// mounts stay, until it is started again or the test ends.
func (d *Daemon) Kill() {
	d.t.Helper()
	cmd := d.cmd
	d.cmd = nil
	if err := cmd.Process.Kill(); err != nil {
		d.t.Error(err)
	}
	<-d.ended
	// Its containerd has died with it. Where nobody reaps that, the next one would take it
	// for alive.
	pids, err := filepath.Glob(filepath.Join(d.dir, "exec", "containerd", "*.pid"))
	if err != nil || len(pids) == 0 {
		d.t.Errorf("the engine's containerd has no file with its process's ID: %v", err)
	}
	for _, file := range pids {
		text, err := os.ReadFile(file)
		if err != nil {
			d.t.Error(err)
		}
		if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && pid > 1 {
			if line, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline"); strings.Contains(string(line), d.dir) {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		if err := os.Remove(file); err != nil {
			d.t.Error(err)
		}
	}
}

// sweep takes away what an engine that was killed left behind: its containers, their
// mounts and their control groups.
func (d *Daemon) sweep() {
	d.t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		d.t.Fatal(err)
	}
	var under []string
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], d.dir+"/") {
			under = append(under, f[4])
		}
	}
	if len(under) == 0 {
		return // it has ended in order
	}
	var ids []string
	if dirs, err := os.ReadDir(filepath.Join(d.dir, "data", "containers")); err == nil {
		for _, c := range dirs {
			ids = append(ids, c.Name())
		}
	}
	theirs := func(proc string) bool {
		line, _ := os.ReadFile(filepath.Join(proc, "cmdline"))
		if strings.Contains(string(line), d.name) {
			return true
		}
		groups, _ := os.ReadFile(filepath.Join(proc, "cgroup"))
		return slices.ContainsFunc(ids, func(id string) bool { return strings.Contains(string(groups), id) })
	}
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		d.t.Fatal(err)
	}
	for _, proc := range procs {
		if pid, err := strconv.Atoi(filepath.Base(proc)); err == nil && theirs(proc) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	for _, at := range slices.Backward(under) {
		if out, err := exec.Command("umount", "-l", at).CombinedOutput(); err != nil {
			d.t.Errorf("cannot unmount %s: %v: %s", at, err, out)
		}
	}
	for _, id := range ids {
		for _, group := range []string{"/sys/fs/cgroup/*/docker/" + id, "/sys/fs/cgroup/docker/" + id} {
			found, _ := filepath.Glob(group)
			for _, g := range found {
				for deadline := time.Now().Add(timeout / 4); os.Remove(g) != nil && time.Now().Before(deadline); {
					time.Sleep(20 * time.Millisecond) // those that were killed are just leaving it
				}
			}
		}
	}
}
