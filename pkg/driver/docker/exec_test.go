package docker_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"peercompute/pkg/driver"
	"peercompute/pkg/driver/docker"
	"peercompute/pkg/driver/docker/dockertest"
	"peercompute/pkg/mesh"
)

// A health check's program runs under all that confines the container, says how it
// ended, and one that hangs is killed.
func TestProbeInside(t *testing.T) {
	needEngine(t)
	d := open(t, newNode(t))
	task := start(t, d, workload(spec(dockertest.Image(t, "testdata/actor"), "serve")))
	p, can := task.(driver.Prober)
	if !can {
		t.Fatal("a container has no probes")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if code, err := p.Probe(ctx, []string{"/program", "confined"}); err != nil || code != 0 {
		t.Fatalf("a probe that looks whether it is confined: %d, %v", code, err)
	}
	if code, err := p.Probe(ctx, []string{"/program", "print", "3", "7"}); err != nil || code != 7 {
		t.Fatalf("a probe that exits with 7: %d, %v", code, err)
	}
	if code, err := p.Probe(ctx, []string{"/nowhere"}); err == nil && code == 0 {
		t.Fatal("a program that is not there has passed")
	}
	short, stop := context.WithTimeout(ctx, 2*time.Second)
	defer stop()
	if _, err := p.Probe(short, []string{"/program", "hang"}); mesh.KindOf(err) != mesh.Timeout {
		t.Fatalf("a probe that hangs: %v, want a timeout", err)
	}
	// It was killed, with what it had started: the next one finds itself alone.
	short, stop = context.WithTimeout(ctx, 2*time.Second)
	defer stop()
	if _, err := p.Probe(short, []string{"/program", "spawn"}); mesh.KindOf(err) != mesh.Timeout {
		t.Fatalf("a probe that hangs, and its child: %v, want a timeout", err)
	}
	if n := processes(t, task); n != "2" { // the server and the one that counts
		t.Errorf("%s processes live after the probes", n)
	}
	if code, err := p.Probe(ctx, []string{"/program", "print", "0", "0"}); err != nil || code != 0 {
		t.Fatalf("after probes that hung: %d, %v", code, err)
	}
	if err := docker.LeaveProbe(ctx, task, "/program", "hang"); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Probe(ctx, []string{"/program", "print", "0", "0"}); mesh.KindOf(err) != mesh.Timeout {
		t.Errorf("beside a probe that could not be ended: %v, want a timeout", err)
	}
}

// processes is how many live in the container, the one that counts included.
func processes(t *testing.T, task driver.Task) string {
	t.Helper()
	var out strings.Builder
	code, err := task.(driver.Execer).Exec(t.Context(), driver.Exec{Argv: []string{"/program", "processes"}, Stdout: &out, Stderr: &out})
	if code != 0 || err != nil {
		t.Fatalf("%d, %v: %s", code, err, out.String())
	}
	return strings.TrimSpace(out.String())
}
