package wasm

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
)

// eventually waits for ok, which it asks every few milliseconds.
func eventually(t testing.TB, within time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(within)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", within, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestServiceSaysWhatWentWrong(t *testing.T) {
	r := newRig(t, Limits{})
	for _, tc := range []struct {
		name   string
		module []byte
		change func(*mesh.Spec)
		status int
		body   string
	}{
		{name: "nothing", module: exitModule(0), status: 502, body: "wrote nothing"},
		{name: "a failure", module: exitModule(4), status: 502, body: "exit status 4"},
		{name: "no head", module: sayModule("hello"), status: 502, body: "does not end with an empty line"},
		{name: "no Content-Type", module: sayModule("X-A: b\r\n\r\nhello"), status: 502, body: "neither Content-Type"},
		{name: "a trap", module: trapModule(), status: 502, body: "trap: unreachable"},
		{name: "no end", module: spinModule(""), change: func(s *mesh.Spec) { s.Timeout = 50 * time.Millisecond }, status: 504, body: "deadline passed"},
		{name: "no fuel", module: spinModule(""), change: func(s *mesh.Spec) { s.Resources.Fuel = 1_500_000 }, status: 500, body: "out of fuel"},
		{name: "no memory", module: eatModule(), change: func(s *mesh.Spec) { s.Resources.Memory = 6 << 20 }, status: 500, body: "out of memory"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := r.workload(r.shelf.bytes(tc.module), mesh.HTTP, tc.change)
			task := r.start(w)
			res, body := get(t, task.client(), "http://app/path")
			if res.StatusCode != tc.status || !strings.Contains(body, tc.body) {
				t.Errorf("got %d %q, want %d and %q", res.StatusCode, body, tc.status, tc.body)
			}
			if err := task.Stop(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
			log := readLog(t, r, w.ID, driver.LogOptions{})
			if !strings.Contains(log, "[peerd] GET /path: ") || !strings.Contains(log, tc.body) {
				t.Errorf("the log does not say so: %q", log)
			}
		})
	}
}

func readLog(t testing.TB, r *rig, id mesh.WorkloadID, o driver.LogOptions) string {
	t.Helper()
	rc, err := r.Logs(t.Context(), id, o)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	b, err := io.ReadAll(driver.PlainLog(rc))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestServiceCutsAnAnswerThatFails(t *testing.T) {
	r := newRig(t, Limits{})
	task := r.start(r.workload(r.shelf.bytes(spinModule(plain+"begun")), mesh.HTTP, func(s *mesh.Spec) { s.Timeout = time.Minute; s.Resources.Fuel = 2_000_000_000 }))
	began := time.Now()
	res, err := task.client().Get("http://app/")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	head := time.Since(began)
	b, err := io.ReadAll(res.Body)
	if string(b) != "begun" || err == nil {
		t.Errorf("got %q, %v; want begun and an error", b, err)
	}
	if whole := time.Since(began); head > whole-100*time.Millisecond {
		t.Errorf("the head came after %s, the end after %s: it was not streamed", head, whole)
	}
}

func TestServiceKeepsHeaders(t *testing.T) {
	r := newRig(t, Limits{})
	task := r.start(r.workload(r.shelf.bytes(sayModule("Status: 207 Many\r\nset-cookie: a=1\r\nSet-Cookie: b=2\r\nConnection: close\r\nContent-Type: x/y\r\n\r\nhello")), mesh.HTTP, nil))
	res, body := get(t, task.client(), "http://app/")
	if res.StatusCode != 207 || body != "hello" || res.Header.Get("Content-Type") != "x/y" {
		t.Errorf("got %d %v %q", res.StatusCode, res.Header, body)
	}
	if got := res.Header["Set-Cookie"]; len(got) != 2 || got[0] != "a=1" || got[1] != "b=2" {
		t.Errorf("cookies %q", got)
	}
}

// zeros is n zero bytes of no known end to a client, unless the client says so.
func zeros(n int64) io.Reader { return io.LimitReader(zeroReader{}, n) }

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestServiceStreamsBothWays(t *testing.T) {
	r := newRig(t, Limits{})
	task := r.start(r.workload(r.shelf.bytes(echoModule(plain)), mesh.HTTP, nil))
	c := task.client()
	send := func(n int64) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), "POST", "http://app/", zeros(n))
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = n
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if got, err := io.Copy(io.Discard, res.Body); err != nil || got != n {
			t.Errorf("got %d bytes back, %v; want %d", got, err, n)
		}
	}
	send(1 << 20)
	before := highWater(t, task.p.cmd.Process.Pid)
	send(256 << 20)
	if after := highWater(t, task.p.cmd.Process.Pid); after-before > 24<<20 {
		t.Errorf("the worker grew by %d MiB", (after-before)>>20)
	}
}

func TestServiceTakesBodiesWithoutLength(t *testing.T) {
	r := newRig(t, Limits{})
	task := r.start(r.workload(r.shelf.bytes(echoModule(plain)), mesh.HTTP, nil))
	for n, want := range map[int64]int{1 << 20: 200, 1<<20 + 1: 411} {
		res, err := task.client().Post("http://app/", "text/plain", zeros(n))
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != want || want == 200 && int64(len(b)) != n {
			t.Errorf("%d bytes: got %d and %d bytes, want %d", n, res.StatusCode, len(b), want)
		}
	}
}

func TestServiceQueues(t *testing.T) {
	r := newRig(t, Limits{Concurrency: 1, Queue: 1, QueueWait: time.Second})
	task := r.start(r.workload(r.shelf.bytes(spinModule("")), mesh.HTTP, func(s *mesh.Spec) { s.Timeout = time.Minute; s.Resources.Fuel = 1 << 60 }))
	ctx, cancel := context.WithCancel(t.Context())
	var first sync.WaitGroup
	defer first.Wait()
	defer cancel()
	first.Go(func() {
		req, _ := http.NewRequestWithContext(ctx, "GET", "http://app/", nil)
		if res, err := task.client().Do(req); err == nil {
			res.Body.Close()
		}
	})
	eventually(t, 30*time.Second, "an instance runs", func() bool { return active(t, task) == 1 })
	// Of more, one after another waits in vain, and those meanwhile find no place to wait.
	ends := make(chan string, 2)
	ask := func() {
		first.Go(func() {
			began := time.Now()
			req, err := http.NewRequestWithContext(ctx, "GET", "http://app/", nil)
			if err != nil {
				t.Error(err)
			}
			res, err := task.client().Do(req)
			if err != nil {
				if ctx.Err() == nil {
					t.Error(err)
				}
				ends <- ""
				return
			}
			defer res.Body.Close()
			b, _ := io.ReadAll(res.Body)
			waited, full := strings.Contains(string(b), "no instance became free in time"), strings.Contains(string(b), "too many requests wait")
			if res.StatusCode != 503 || res.Header.Get("Retry-After") == "" || waited == full || waited && time.Since(began) < time.Second {
				t.Errorf("after %s: %d %v %q", time.Since(began), res.StatusCode, res.Header, b)
			}
			ends <- string(b)
		})
	}
	ask()
	ask()
	for seen := map[string]bool{}; len(seen) < 2 && !t.Failed(); {
		if seen[<-ends] = true; len(seen) < 2 {
			ask()
		}
	}
}

func active(t testing.TB, task *task) int64 {
	t.Helper()
	s, err := task.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s.PIDs
}

func TestServiceStopsForAClientThatLeft(t *testing.T) {
	r := newRig(t, Limits{})
	task := r.start(r.workload(r.shelf.bytes(spinModule("")), mesh.HTTP, func(s *mesh.Spec) { s.Timeout = time.Minute; s.Resources.Fuel = 1 << 60 }))
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() {
		req, _ := http.NewRequestWithContext(ctx, "GET", "http://app/", nil)
		_, err := task.client().Do(req)
		gone <- err
	}()
	eventually(t, 30*time.Second, "the instance runs", func() bool { return active(t, task) == 1 })
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "the instance ends", func() bool { return active(t, task) == 0 })
}

// Guests that never call out must hold up neither each other nor the worker.
func TestLoopsLeaveTheWorkerResponsive(t *testing.T) {
	r := newRig(t, Limits{})
	spin := r.start(r.workload(r.shelf.bytes(spinModule("")), mesh.HTTP, func(s *mesh.Spec) { s.Timeout = time.Minute; s.Resources.Fuel = 1 << 60 }))
	hello := r.start(r.workload(r.shelf.bytes(sayModule(plain+"hello")), mesh.HTTP, nil))
	var spinning sync.WaitGroup
	for range 6 {
		spinning.Go(func() {
			if res, err := spin.client().Get("http://app/"); err == nil {
				res.Body.Close()
			}
		})
	}
	eventually(t, 30*time.Second, "all run", func() bool { return active(t, spin) == 6 })
	var worst time.Duration
	for range 20 {
		asked := time.Now()
		if res, body := get(t, hello.client(), "http://app/"); res.StatusCode != 200 || body != "hello" {
			t.Fatalf("got %d %q", res.StatusCode, body)
		}
		worst = max(worst, time.Since(asked))
	}
	if worst > 20*time.Second { // the loops go on for a minute
		t.Errorf("beside loops a request took %s", worst)
	}
	t.Logf("the slowest of 20 requests beside 6 loops took %s", worst)
	began := time.Now()
	if err := spin.Stop(t.Context(), 0); err != nil {
		t.Error(err)
	}
	spinning.Wait()
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("to end the loops took %s", took)
	}
}

func TestStopEndsALoop(t *testing.T) {
	r := newRig(t, Limits{})
	task := r.start(r.workload(r.shelf.bytes(spinModule("")), mesh.HTTP, func(s *mesh.Spec) { s.Timeout = time.Minute; s.Resources.Fuel = 1 << 60 }))
	var asking sync.WaitGroup
	defer asking.Wait()
	asking.Go(func() {
		if res, err := task.client().Get("http://app/"); err == nil {
			res.Body.Close()
		}
	})
	eventually(t, 30*time.Second, "the instance runs", func() bool { return active(t, task) == 1 })
	began := time.Now()
	if err := task.Stop(t.Context(), 100*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < 100*time.Millisecond || took > 30*time.Second {
		t.Errorf("stopping took %s", took)
	}
	if exit, err := task.Wait(t.Context()); err != nil || exit.Fuel < 1_000_000 {
		t.Errorf("got %+v, %v; want the fuel that was burnt", exit, err)
	}
}

func TestConnectionIsReused(t *testing.T) {
	r := newRig(t, Limits{})
	task := r.start(r.workload(r.shelf.bytes(sayModule(plain+"hello")), mesh.HTTP, nil))
	c, err := task.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	in := bufio.NewReader(c)
	for range 3 {
		if _, err := fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: app\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if _, err := b.ReadFrom(res.Body); err != nil || b.String() != "hello" {
			t.Errorf("got %q, %v", &b, err)
		}
	}
}

func TestTooManyConnectionsAreClosed(t *testing.T) {
	r := newRig(t, Limits{Connections: 4})
	task := r.start(r.workload(r.shelf.bytes(sayModule(plain+"hello")), mesh.HTTP, nil))
	var open []io.Closer
	for range 4 {
		c, err := task.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	over, err := task.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer over.Close()
	if err := over.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := over.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a fifth connection: got %d, %v", n, err)
	}
	for _, c := range open {
		c.Close()
	}
	eventually(t, 30*time.Second, "there is room again", func() bool {
		res, err := task.client().Get("http://app/")
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == 200
	})
}
