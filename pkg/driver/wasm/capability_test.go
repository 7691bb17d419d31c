package wasm

import (
	"fmt"
	"net/http"
	"net/http/httptest"
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

// A guest's http.Client reaches what its spec lists, through peerd, and nothing else.
func TestHTTPRequests(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s for %s", r.Method, r.URL.Path, r.UserAgent())
	}))
	defer s.Close()
	host := strings.TrimPrefix(s.URL, "http://")
	r := newGoRig(t, Limits{})
	digest := r.shelf.put(guests.build(t, "peercompute/examples/fetch"))
	run := func(replay *driver.Replayed, hosts ...string) ran {
		return r.job(r.workload(digest, mesh.Job, func(sp *mesh.Spec) {
			sp.Args = []string{s.URL + "/path"}
			if sp.Hosts = hosts; len(hosts) > 0 {
				sp.Egress = mesh.EgressAllow
			}
		}), driver.Job{Replay: replay})
	}
	if got := run(nil, host); got.Code != 1 || !strings.Contains(got.errs, "no guest use the network") {
		t.Errorf("nobody allowed it: %+v", got)
	}
	r.cfg.MayConnect = func(mesh.PeerID, mesh.Spec) error { return nil }
	first := run(nil, host)
	if first.Code != 0 || first.out != "GET /path for Go-http-client/1.1" || first.errs != "200 OK\n" {
		t.Errorf("got %+v", first)
	}
	if got := run(nil, "example.org:443"); got.Code != 1 || !strings.Contains(got.errs, host+" is not on this workload's list of hosts") {
		t.Errorf("what is not listed: %+v", got)
	}
	if got := run(nil); got.Code != 1 || !strings.Contains(got.errs, "may not use the network") {
		t.Errorf("without a list: %+v", got)
	}
	// Repeated from its record, it needs no network.
	r.cfg.MayConnect = nil
	s.Close()
	if again := run(&driver.Replayed{Record: first.Record}, host); again.out != first.out || again.Fuel != first.Fuel {
		t.Errorf("first %+v, repeated %+v", first, again)
	}
}
