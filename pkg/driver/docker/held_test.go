package docker_test

import (
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"peercompute/pkg/driver"
	"peercompute/pkg/driver/docker"
	"peercompute/pkg/driver/docker/dockertest"
	"peercompute/pkg/mesh"
)

// held waits until a task is held for what the text says; "" = until it is not held.
func held(t *testing.T, task driver.Task, text string) {
	t.Helper()
	for end := time.Now().Add(40 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		got := task.(driver.Holder).Held()
		if got == text || text != "" && strings.Contains(got, text) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("it is held for %q, want %q", got, text)
		}
	}
}

// A program that writes without end waits like any whose pipe is full, under the driver
// that started it and under the next.
func TestOutputIsPaced(t *testing.T) {
	needEngine(t)
	node := newNode(t)
	d := open(t, node)
	w := workload(spec(dockertest.Image(t, "testdata/actor"), "chatter"))
	task := start(t, d, w)
	held(t, task, "output")
	// Lines are timed as the engine takes them. Some were taken at once.
	const tail = 20_000 // 5 MiB, as they count
	var took time.Duration
	for end := time.Now().Add(time.Minute); took < 1500*time.Millisecond; time.Sleep(100 * time.Millisecond) {
		if took = logged(t, d, w, tail); time.Now().After(end) {
			t.Fatalf("%d lines were taken in %s, which is more than 2 MiB a second", tail, took)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = open(t, node)
	tasks, err := d.Adopt(t.Context())
	if err != nil || len(tasks) != 1 {
		t.Fatalf("adopted %d: %v", len(tasks), err)
	}
	held(t, tasks[0], "output")
	if err := tasks[0].Stop(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if exit, err := tasks[0].Wait(t.Context()); err != nil || exit.Kind != mesh.Canceled {
		t.Errorf("ended with %+v, %v", exit, err)
	}
}

// logged is the time between the first and the last of so many lines, the newest.
func logged(t *testing.T, d driver.Driver, w mesh.Workload, lines int) time.Duration {
	t.Helper()
	r, err := d.Logs(t.Context(), w.ID, driver.LogOptions{Tail: lines})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var first, last time.Time
	for n := 0; ; n++ {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			if n < lines {
				return 0
			}
			return last.Sub(first)
		}
		if err != nil {
			t.Fatal(err)
		}
		if last = e.Time; n == 0 {
			first = last
		}
	}
}

// A container in which one process after another is killed for memory has little
// processor time for a while, and its own again then, or under the next driver.
func TestKillsAreSlowedDown(t *testing.T) {
	needEngine(t)
	if gVisor() {
		t.Skip("gVisor's kernel ends the whole sandbox")
	}
	node := newNode(t)
	var later atomic.Int64 // time.Duration
	host, runtime := dockertest.Chosen()
	d, err := docker.New(docker.Config{
		Node: node, Host: host, Runtime: runtime, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Now: func() time.Time { return time.Now().Add(time.Duration(later.Load())) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() }) // after what Remove does
	image := dockertest.Image(t, "testdata/actor")
	begin := func() (driver.Task, func() int64) {
		s := spec(image, "eaters", "4")
		s.Resources.Memory = 32 << 20
		w := workload(s)
		task := start(t, d, w)
		return task, func() int64 {
			got, err := dockertest.Client(t).ContainerInspect(t.Context(), docker.ContainerName(node, w.ID))
			if err != nil {
				t.Fatal(err)
			}
			return got.HostConfig.NanoCPUs
		}
	}
	until := func(cpu func() int64, want int64) {
		t.Helper()
		for end := time.Now().Add(40 * time.Second); cpu() != want; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("it may have %d billionths of a core, want %d", cpu(), want)
			}
		}
	}
	task, cpu := begin()
	own := cpu()
	held(t, task, "killed for memory")
	const little = 50_000_000
	until(cpu, little)
	if err := answer(t, task); err != nil { // all of them are dead
		t.Fatal(err)
	}
	later.Store(int64(time.Minute))
	held(t, task, "")
	until(cpu, own)

	_, cpu = begin()
	until(cpu, little)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, node).Adopt(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := cpu(); got != own {
		t.Errorf("after a restart of peerd it may have %d billionths of a core, want %d", got, own)
	}
}
