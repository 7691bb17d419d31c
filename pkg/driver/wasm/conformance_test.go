package wasm

import (
	"strconv"
	"testing"

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
	t.Run("memory", func(t *testing.T) {
		w := r.workload(digest, mesh.Job, func(s *mesh.Spec) { s.Args = []string{"eat"}; s.Resources.Memory = 32 << 20 })
		if _, exit := r.output(w); exit.Kind != mesh.OutOfMemory || exit.PeakMemory > 32<<20 {
			t.Errorf("got %+v", exit)
		}
	})
}
