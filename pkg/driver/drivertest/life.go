package drivertest

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
)

// get asks the task for / once.
func get(ctx context.Context, task driver.Task) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	tr := &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return task.Dial(ctx) },
	}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://workload/", nil)
	if err != nil {
		return "", err
	}
	res, err := tr.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %s", res.Status)
	}
	return string(b), err
}

// answers waits until the task says hello.
func answers(ctx context.Context, t testing.TB, task driver.Task) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		body, err := get(ctx, task)
		if err == nil {
			if body != "hello" {
				t.Fatalf("got %q, want hello", body)
			}
			return
		}
		if mesh.KindOf(err) == mesh.Unsupported {
			t.Fatal(err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("it never answered: %v", err)
		}
	}
}

func (h Harness) servesUntilStopped(t *testing.T) {
	ctx, d := bounded(t), h.New(t)
	task, w := h.start(ctx, t, d, h.Serve())
	answers(ctx, t, task)
	s, err := task.Stats(ctx)
	if err != nil || s.Memory <= 0 || s.Memory > w.Spec.Resources.Memory {
		t.Errorf("stats: got %+v, %v", s, err)
	}
	if err := task.Stop(ctx, 10*time.Second); err != nil {
		t.Fatalf("stop: %v", err)
	}
	if _, err := get(ctx, task); err == nil {
		t.Error("it answers after it was stopped")
	}
	_, err = task.Dial(ctx)
	wantKind(t, "dial after stop", err, mesh.Unavailable)
	if _, err := task.Wait(ctx); err != nil {
		t.Errorf("wait after stop: %v", err)
	}
	if err := task.Stop(ctx, time.Second); err != nil {
		t.Errorf("second stop: %v", err)
	}
	for range 2 {
		if err := d.Remove(ctx, w.ID); err != nil {
			t.Errorf("remove: %v", err)
		}
	}
	_, err = d.Logs(ctx, w.ID, driver.LogOptions{})
	wantKind(t, "logs after remove", err, mesh.NotFound)
}

func (h Harness) exitCodes(t *testing.T) {
	d := h.New(t)
	for _, code := range []int{0, 1, 42} {
		ctx := bounded(t)
		task, _ := h.start(ctx, t, d, h.Print(1, code))
		for range 2 { // whoever asks again gets the same
			exit, err := task.Wait(ctx)
			if err != nil || exit.Code != code || exit.Kind != 0 {
				t.Errorf("exit %d: got %+v, %v", code, exit, err)
			}
		}
		if err := task.Stop(ctx, time.Second); err != nil {
			t.Errorf("stop after the end: %v", err)
		}
	}
}

func (h Harness) stopByForce(t *testing.T) {
	ctx, d := bounded(t), h.New(t)
	task, _ := h.start(ctx, t, d, h.Stubborn())
	answers(ctx, t, task)
	for _, grace := range []time.Duration{300 * time.Millisecond, 0} {
		began := time.Now()
		if err := task.Stop(ctx, grace); err != nil {
			t.Fatalf("stop: %v", err)
		}
		if took := time.Since(began); took > grace+5*time.Second {
			t.Errorf("stop with grace %s took %s", grace, took)
		}
	}
	if _, err := get(ctx, task); err == nil {
		t.Error("it answers after it was stopped by force")
	}
	if exit, err := task.Wait(ctx); err != nil || exit.Code == 0 && exit.Kind == 0 {
		t.Errorf("wait: got %+v, %v: it did not end by itself", exit, err)
	}
}

func (h Harness) giveUp(t *testing.T) {
	ctx, d := bounded(t), h.New(t)
	task, _ := h.start(ctx, t, d, h.Serve())
	answers(ctx, t, task)
	brief, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	_, err := task.Wait(brief)
	wantKind(t, "wait past its deadline", err, mesh.Timeout)
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if conn, err := task.Dial(gone); err == nil {
		conn.Close()
		t.Error("a dial went on after its context had ended")
	}
	answers(ctx, t, task)
}

func (h Harness) startAgain(t *testing.T) {
	ctx, d := bounded(t), h.New(t)
	first, w := h.start(ctx, t, d, h.Serve())
	answers(ctx, t, first)
	second, err := d.Start(ctx, w)
	if err != nil {
		t.Fatalf("second start: %v", err)
	}
	answers(ctx, t, second)
	if _, err := first.Wait(ctx); err != nil && mesh.KindOf(err) != mesh.NotFound {
		t.Errorf("the first run: %v", err)
	}
	if h.Outlives {
		if n := countAdopted(ctx, t, h.New(t), w.ID); n != 1 {
			t.Errorf("%d runs of the workload, want 1", n)
		}
	}
}

func (h Harness) adopt(t *testing.T) {
	ctx, d := bounded(t), h.New(t)
	task, running := h.start(ctx, t, d, h.Serve())
	answers(ctx, t, task)
	short, ended := h.start(ctx, t, d, h.Print(1, 7))
	if _, err := short.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	if !h.Outlives {
		return // what New leaves of such a runtime is its own affair
	}
	again := h.New(t)
	tasks, err := again.Adopt(ctx)
	if err != nil {
		t.Fatalf("adopt: %v", err)
	}
	seen := map[mesh.WorkloadID]driver.Task{}
	for _, task := range tasks {
		seen[task.ID()] = task
	}
	if seen[running.ID] == nil || seen[ended.ID] == nil {
		t.Fatalf("adopted %d, without the running or the ended one", len(tasks))
	}
	answers(ctx, t, seen[running.ID])
	if exit, err := seen[ended.ID].Wait(ctx); err != nil || exit.Code != 7 {
		t.Errorf("the ended one: got %+v, %v, want code 7", exit, err)
	}
	if err := seen[running.ID].Stop(ctx, 10*time.Second); err != nil {
		t.Errorf("stop of an adopted one: %v", err)
	}
	if exit, err := task.Wait(ctx); err != nil || exit.Kind != 0 && exit.Kind != mesh.Canceled {
		t.Errorf("the task from before the restart: got %+v, %v", exit, err)
	}
	for _, id := range []mesh.WorkloadID{running.ID, ended.ID} {
		if err := again.Remove(ctx, id); err != nil {
			t.Errorf("remove: %v", err)
		}
		if n := countAdopted(ctx, t, again, id); n != 0 {
			t.Errorf("%d runs of a removed workload", n)
		}
	}
}

func countAdopted(ctx context.Context, t testing.TB, d driver.Driver, id mesh.WorkloadID) (n int) {
	t.Helper()
	tasks, err := d.Adopt(ctx)
	if err != nil {
		t.Fatalf("adopt: %v", err)
	}
	for _, task := range tasks {
		if task.ID() == id {
			n++
		}
	}
	return n
}

func (h Harness) otherDigest(t *testing.T) {
	ctx, d := bounded(t), h.New(t)
	w := h.workload(h.Serve())
	digest := prepare(ctx, t, d, w)
	w.Spec.Digest = digest
	if again := prepare(ctx, t, d, w); again != digest {
		t.Errorf("pinned to %s, prepared %s", digest, again)
	}
	w.Spec.Digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
	_, err := d.Prepare(ctx, w, func(mesh.Progress) {})
	wantKind(t, "prepare with another digest", err, mesh.Denied)
	if task, err := d.Start(ctx, w); err == nil {
		removeAfter(t, d, w.ID)
		t.Errorf("it started %s all the same", task.ID())
	}
}

func (h Harness) unknown(t *testing.T) {
	ctx, d := bounded(t), h.New(t)
	id := h.workload(h.Serve()).ID
	if err := d.Remove(ctx, id); err != nil {
		t.Errorf("remove of a workload that never was: %v", err)
	}
	log, err := d.Logs(ctx, id, driver.LogOptions{})
	wantKind(t, "logs of a workload that never was", err, mesh.NotFound)
	if err == nil {
		log.Close()
	}
}
