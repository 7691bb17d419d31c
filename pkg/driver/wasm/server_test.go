package wasm

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
)

const serverGuest = "peercompute/examples/hello-server"

// serving starts the example server.
func serving(t *testing.T, l Limits, change func(*mesh.Spec)) (*rig, *task, mesh.Workload) {
	t.Helper()
	r := newGoRig(t, l)
	w := r.workload(r.shelf.put(guests.build(t, serverGuest)), mesh.Server, change)
	return r, r.start(w), w
}

// A standard net/http program serves on the listener that it finds open.
func TestServer(t *testing.T) {
	r, task, w := serving(t, Limits{}, nil)
	if task.Idle() || active(t, task) != 1 {
		t.Error("it was not started when it was deployed")
	}
	c := task.client()
	for _, want := range []string{"request 1, ", "request 2, "} {
		if res, body := get(t, c, "http://app.example/"); res.StatusCode != 200 || !strings.Contains(body, want) || !strings.Contains(body, "app.example") {
			t.Errorf("got %d %q, want %q", res.StatusCode, body, want)
		}
	}
	if task.Idle() || active(t, task) != 1 {
		t.Error("it does not run")
	}
	t.Run("echo", func(t *testing.T) {
		want := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
		for _, body := range []io.Reader{bytes.NewReader(want), io.MultiReader(bytes.NewReader(want))} { // with a length, and without
			res, err := c.Post("http://app/echo", "text/plain", body)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("got %d bytes, %v", len(got), err)
			}
		}
	})
	t.Run("events are live", func(t *testing.T) {
		sent := time.Now()
		res, err := c.Get("http://app/events?n=600")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body := bufio.NewReader(res.Body)
		first, err := body.ReadString('\n')
		if err != nil || first != "data: 0\n" {
			t.Errorf("%q, %v", first, err)
		}
		for range 2 { // and its empty line
			_, err = body.ReadString('\n')
		}
		if took := time.Since(sent); err != nil || took > 50*time.Second { // the last one comes after a minute
			t.Errorf("the second came after %s, %v", took, err)
		}
	})
	t.Run("many at once", func(t *testing.T) {
		var wg sync.WaitGroup
		for range 12 {
			wg.Go(func() {
				for range 5 {
					res, err := c.Get("http://app/")
					if err != nil {
						t.Error(err)
						return
					}
					b, err := io.ReadAll(res.Body)
					res.Body.Close()
					if err != nil || !strings.Contains(string(b), "Hello") {
						t.Errorf("%q, %v", b, err)
					}
				}
			})
		}
		wg.Wait()
	})
	if s, err := task.Stats(t.Context()); err != nil || s.Memory == 0 {
		t.Errorf("%+v, %v", s, err)
	}
	if err := task.Stop(t.Context(), time.Second); err != nil {
		t.Fatal(err)
	}
	if log := readLog(t, r, w.ID, driver.LogOptions{}); !strings.Contains(log, "hello-server: serving") {
		t.Errorf("the log is %q", log)
	}
}

// A program that does not serve is met when it is deployed.
func TestServerThatDoesNotServe(t *testing.T) {
	r := newRig(t, Limits{})
	for name, tc := range map[string]struct {
		module []byte
		want   string
	}{
		"CGI":    {sayModule(plain), "exit status 0"},
		"a trap": {trapModule(), "trap: unreachable"},
	} {
		w := r.workload(r.shelf.bytes(tc.module), mesh.Server, nil)
		if _, err := r.Prepare(t.Context(), w, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Start(t.Context(), w); err == nil || !strings.Contains(err.Error(), "before it listened") || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Without requests nothing runs; the next one starts it anew.
func TestServerScalesToZero(t *testing.T) {
	_, task, _ := serving(t, Limits{}, func(s *mesh.Spec) { s.Idle = time.Second })
	c := task.client()
	get(t, c, "http://app/")
	get(t, c, "http://app/")
	eventually(t, 20*time.Second, "it is ended", func() bool { return task.Idle() && active(t, task) == 0 })
	if _, body := get(t, c, "http://app/"); !strings.Contains(body, "request 1, ") {
		t.Errorf("the next request met %q", body)
	}
	// A request that takes longer than that keeps it running.
	if _, body := get(t, c, "http://app/sleep?for=1500ms"); body != "slept\n" {
		t.Errorf("got %q", body)
	}
}

// A server that is stuck is noticed and started anew; others of the worker, and the
// worker itself, notice nothing.
func TestStuckServerIsRestarted(t *testing.T) {
	r, task, w := serving(t, Limits{}, func(s *mesh.Spec) { s.Timeout = 3 * time.Second; s.Resources.MilliCPU = 500 })
	c := task.client()
	get(t, c, "http://app/")
	if res, body := get(t, c, "http://app/spin"); res.StatusCode != http.StatusGatewayTimeout || !strings.Contains(body, "no answer in time") {
		t.Errorf("got %d %q", res.StatusCode, body)
	}
	again := func() bool {
		res, err := c.Get("http://app/")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		if res.StatusCode == http.StatusServiceUnavailable && res.Header.Get("Retry-After") == "" {
			t.Error("refused without saying for how long")
		}
		return strings.Contains(string(b), "request 1, ")
	}
	eventually(t, 30*time.Second, "it is started anew", again)
	// One that ends by itself as well.
	if res, body := get(t, c, "http://app/exit"); res.StatusCode != http.StatusBadGateway || !strings.Contains(body, "the server ended") {
		t.Errorf("got %d %q", res.StatusCode, body)
	}
	eventually(t, 30*time.Second, "it is started anew", again)
	if log := readLog(t, r, w.ID, driver.LogOptions{}); !strings.Contains(log, "it does not answer") || !strings.Contains(log, "exit status 3") {
		t.Errorf("the log does not say so: %q", log)
	}
}

// Requests beyond the limit wait their turn, for so long, and are then told when to
// come again.
func TestServerQueues(t *testing.T) {
	_, task, _ := serving(t, Limits{Queue: 1, QueueWait: 300 * time.Millisecond}, func(s *mesh.Spec) { s.Concurrency = 1 })
	c := task.client()
	get(t, c, "http://app/")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	sleeping := make(chan struct{})
	wg.Go(func() {
		req, _ := http.NewRequestWithContext(ctx, "GET", "http://app/sleep?for=1m", nil)
		close(sleeping)
		if res, err := c.Do(req); err == nil {
			res.Body.Close()
		}
	})
	<-sleeping
	eventually(t, 30*time.Second, "a request is refused", func() bool {
		res, err := c.Get("http://app/")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		return res.StatusCode == http.StatusServiceUnavailable && res.Header.Get("Retry-After") != ""
	})
}

// What a server burns is bounded by the second and by the day.
func TestServerFuel(t *testing.T) {
	t.Run("a day", func(t *testing.T) {
		_, task, _ := serving(t, Limits{}, func(s *mesh.Spec) { s.FuelDay = 200_000_000; s.Timeout = 20 * time.Second })
		c := task.client()
		get(t, c, "http://app/")
		if res, body := get(t, c, "http://app/spin"); res.StatusCode != http.StatusBadGateway {
			t.Errorf("got %d %q", res.StatusCode, body)
		}
		eventually(t, 20*time.Second, "its day is over", func() bool {
			res, body := get(t, c, "http://app/")
			return res.StatusCode == http.StatusServiceUnavailable && strings.Contains(body, "200000000 units of fuel of today")
		})
	})
}

// What earlier runs burnt today counts, and what a run burns is known while it runs.
func TestServerFuelGoesOn(t *testing.T) {
	r := newGoRig(t, Limits{})
	var before atomic.Uint64
	r.cfg.Burnt = func(mesh.WorkloadID) (uint64, error) { return before.Load(), nil }
	digest := r.shelf.put(guests.build(t, serverGuest))
	server := func() mesh.Workload {
		return r.workload(digest, mesh.Server, func(s *mesh.Spec) { s.FuelDay = 100_000_000_000; s.Timeout = time.Minute })
	}
	task := r.start(server())
	get(t, task.client(), "http://app/")
	began, err := task.Stats(t.Context())
	if err != nil || began.Fuel == 0 || began.PIDs != 1 {
		t.Fatalf("one that runs: %+v, %v", began, err)
	}
	spinning, hangUp := context.WithCancel(t.Context())
	defer hangUp()
	go func() {
		req, err := http.NewRequestWithContext(spinning, http.MethodGet, "http://app/spin", nil)
		if err == nil {
			if res, err := task.client().Do(req); err == nil {
				res.Body.Close()
			}
		}
	}()
	eventually(t, 20*time.Second, "what it burns is seen", func() bool {
		now, err := task.Stats(t.Context())
		return err == nil && now.PIDs == 1 && now.Fuel > began.Fuel+50_000_000
	})
	hangUp()

	before.Store(100_000_000_000)
	task = r.start(server())
	if res, body := get(t, task.client(), "http://app/"); res.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "of today") {
		t.Errorf("one that burnt all of its day before: %d %q", res.StatusCode, body)
	}
}

func TestServerRate(t *testing.T) {
	_, task, _ := serving(t, Limits{}, func(s *mesh.Spec) { s.Resources.Fuel = 20_000_000; s.Timeout = 2 * time.Second })
	get(t, task.client(), "http://app/")
	before, err := task.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	get(t, task.client(), "http://app/spin") // ends after its time, and the instance with it
	eventually(t, 20*time.Second, "it is ended", func() bool { return task.Idle() })
	after, err := task.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began).Seconds(); float64(after.Fuel-before.Fuel) > 20e6*(took+2) {
		t.Errorf("burnt %d units in %.1f s", after.Fuel-before.Fuel, took)
	}
}
