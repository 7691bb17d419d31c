package wasm

import (
	"bufio"
	"strconv"
	"strings"
	"testing"
	"time"

	"peercompute/pkg/driver"
	"peercompute/pkg/driver/drivertest"
	"peercompute/pkg/mesh"
)

func TestConformance(t *testing.T) {
	probe := guests.build(t, "./testdata/probe")
	shelf := &shelf{t: t, m: map[string]string{}}
	digest := shelf.put(probe)
	spec := func(shape mesh.Shape, args ...string) mesh.Spec {
		return mesh.Spec{Name: "conform", Runtime: mesh.Wasm, Shape: shape, Digest: digest, Args: args}
	}
	drivertest.Run(t, drivertest.Harness{
		New: func(t testing.TB) driver.Driver {
			r := newGoRig(t, Limits{})
			// A module's digest is its name: with another digest it is found all the
			// same, as if its file had been changed.
			r.cfg.Module = func(string) (string, error) { return probe, nil }
			return r.Driver
		},
		Serve: func() mesh.Spec { return spec(mesh.HTTP) },
		Print: func(lines, code int) mesh.Spec {
			return spec(mesh.Job, "print", strconv.Itoa(lines), strconv.Itoa(code))
		},
		Owner: "owner",
	})
}

// Go programs see what the package says that they see.
func TestGoGuest(t *testing.T) {
	r := newGoRig(t, Limits{})
	digest := r.shelf.probe()
	for _, tc := range []struct{ name, arg, want string }{
		{"the wall clock tells nothing", "clock", strconv.Itoa(Epoch)},
		{"no files", "open", "true"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if out, exit := r.output(r.workload(digest, mesh.Job, func(s *mesh.Spec) { s.Args = []string{tc.arg} })); out != tc.want {
				t.Errorf("got %q (%+v), want %q", out, exit, tc.want)
			}
		})
	}
	service := r.start(r.workload(digest, mesh.HTTP, nil))
	c := service.client()
	t.Run("no state between requests", func(t *testing.T) {
		for range 3 {
			if _, body := get(t, c, "http://app/state"); body != "0" {
				t.Errorf("got %q", body)
			}
		}
	})
	t.Run("download", func(t *testing.T) {
		res, body := get(t, c, "http://app/send:8")
		if res.StatusCode != 201 || len(body) != 8<<20 || len(res.Header["Set-Cookie"]) != 2 {
			t.Errorf("got %d, %d bytes, %v", res.StatusCode, len(body), res.Header)
		}
	})
	t.Run("events are live", func(t *testing.T) {
		res, err := c.Get("http://app/events:1000")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		first, err := bufio.NewReader(res.Body).ReadString('\n')
		if err != nil || first != "data: 0\n" {
			t.Errorf("got %q, %v", first, err)
		}
		if active(t, service) != 1 {
			t.Error("the first event came after the last")
		}
	})
	t.Run("a sleeper is woken at its deadline", func(t *testing.T) {
		began := time.Now()
		w := r.workload(digest, mesh.Job, func(s *mesh.Spec) { s.Args = []string{"sleep:60000"}; s.Timeout = 300 * time.Millisecond })
		if _, exit := r.output(w); exit.Kind != mesh.Timeout || time.Since(began) > 50*time.Second {
			t.Errorf("got %+v after %s", exit, time.Since(began))
		}
	})
	t.Run("what it says of its end is in the log", func(t *testing.T) {
		w := r.workload(digest, mesh.Job, func(s *mesh.Spec) { s.Args = []string{"panic"} })
		if exit, err := r.start(w).Wait(t.Context()); err != nil || exit.Code != 2 || exit.Kind != 0 {
			t.Errorf("got %+v, %v", exit, err)
		}
		if log := readLog(t, r, w.ID, driver.LogOptions{}); !strings.Contains(log, "panic: on request") {
			t.Errorf("the log is %q", log)
		}
	})
	t.Run("the same run burns the same fuel", func(t *testing.T) {
		w := r.workload(digest, mesh.Job, func(s *mesh.Spec) { s.Args = []string{"nothing"} })
		_, first := r.output(w)
		_, second := r.output(w)
		t.Logf("%d and %d units", first.Fuel, second.Fuel)
		if first.Fuel == 0 {
			t.Error("none at all")
		}
	})
	t.Run("memory", func(t *testing.T) {
		w := r.workload(digest, mesh.Job, func(s *mesh.Spec) { s.Args = []string{"eat"}; s.Resources.Memory = 32 << 20 })
		if _, exit := r.output(w); exit.Kind != mesh.OutOfMemory || exit.PeakMemory > 32<<20 {
			t.Errorf("got %+v", exit)
		}
	})
}
