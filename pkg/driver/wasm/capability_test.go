package wasm

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
)

// A Go program finds its scratch directory where it looks for files, private and
// of the size that was given, and nothing of it later.
func TestScratch(t *testing.T) {
	r := newGoRig(t, Limits{})
	digest := r.shelf.probe()
	run := func(size int64, arg string) (string, mesh.Exit) {
		return r.output(r.workload(digest, mesh.Job, func(s *mesh.Spec) { s.Args = []string{arg}; s.Resources.Disk = size }))
	}
	for range 2 { // the second would stumble over what the first left
		if out, exit := run(1<<20, "files:100"); out != "b three two true" || exit.Code != 0 {
			t.Errorf("%q, %+v", out, exit)
		}
	}
	if out, exit := run(0, "files:1"); exit.Code != 1 {
		t.Errorf("without one: %q, %+v", out, exit)
	}
	if out, exit := run(1<<20, "fill"); out != fmt.Sprint(1<<20, " true") || exit.Code != 0 {
		t.Errorf("%q, %+v", out, exit)
	}
}

// What instances hold in files counts against their worker's memory.
func TestScratchIsMemory(t *testing.T) {
	r := newGoRig(t, Limits{WorkerMemory: 64 << 20})
	digest := r.shelf.probe()
	out, _ := r.output(r.workload(digest, mesh.Job, func(s *mesh.Spec) { s.Args = []string{"fill"}; s.Resources.Disk = 200 << 20 }))
	n, full, _ := strings.Cut(out, " ")
	if got, err := strconv.Atoi(n); err != nil || got > 64<<20 || got < 32<<20 || full != "true" {
		t.Errorf("of 64 MiB it could use %s", out)
	}
}

// Each request to a service has a directory of its own.
func TestScratchOfAService(t *testing.T) {
	r := newGoRig(t, Limits{})
	task := r.start(r.workload(r.shelf.probe(), mesh.HTTP, func(s *mesh.Spec) { s.Resources.Disk = 1 << 20 }))
	for range 2 {
		res, err := task.client().Get("http://app/files:1")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
	}
	if s, err := task.Stats(t.Context()); err != nil || s.PIDs != 0 {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestWallClock(t *testing.T) {
	r := newGoRig(t, Limits{})
	digest := r.shelf.probe()
	w := r.workload(digest, mesh.Job, func(s *mesh.Spec) { s.Args = []string{"clock"}; s.Clock = mesh.ClockWall })
	first := r.job(w, driver.Job{Seed: driver.Seed{1}})
	if at, err := strconv.ParseInt(first.out, 10, 64); err != nil || time.Since(time.Unix(at, 0)).Abs() > time.Hour {
		t.Errorf("it says %s", first.out)
	}
	// Repeated, it is the same time again.
	again := r.job(w, driver.Job{Seed: driver.Seed{1}, Replay: &driver.Replayed{Record: first.Record}})
	if again.out != first.out || again.Fuel != first.Fuel {
		t.Errorf("first %+v, repeated %+v", first, again)
	}
	if got := r.job(w, driver.Job{Seed: driver.Seed{1}, Replay: &driver.Replayed{}}); got.Kind != mesh.Conflict {
		t.Errorf("repeated without its record: %+v", got.Ran)
	}
}
