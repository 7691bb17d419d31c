package drivertest

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
)

const maxLog = 1 << 20

func readLog(ctx context.Context, t testing.TB, d driver.Driver, id mesh.WorkloadID, o driver.LogOptions) string {
	t.Helper()
	r, err := d.Logs(ctx, id, o)
	if err != nil {
		t.Fatalf("logs: %v", err)
	}
	b, err := io.ReadAll(io.LimitReader(r, maxLog))
	if err != nil {
		t.Errorf("reading the log: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Errorf("closing the log: %v", err)
	}
	return string(b)
}

func (h Harness) logTail(t *testing.T) {
	ctx, d := bounded(t), h.New(t)
	task, w := h.start(ctx, t, d, h.Print(20, 0))
	if _, err := task.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	whole := readLog(ctx, t, d, w.ID, driver.LogOptions{})
	if lines := strings.Split(strings.TrimSuffix(whole, "\n"), "\n"); len(lines) != 20 || lines[0] != "line 1" || lines[19] != "line 20" {
		t.Errorf("the log is %q", whole)
	}
	if got, want := readLog(ctx, t, d, w.ID, driver.LogOptions{Tail: 2}), "line 19\nline 20\n"; got != want {
		t.Errorf("tail: got %q, want %q", got, want)
	}
	if got := readLog(ctx, t, d, w.ID, driver.LogOptions{Tail: 500}); got != whole {
		t.Errorf("a tail longer than the log: got %q", got)
	}
	if got := readLog(ctx, t, d, w.ID, driver.LogOptions{Follow: true}); got != whole {
		t.Errorf("following an ended run: got %q", got)
	}
}

func (h Harness) logFollow(t *testing.T) {
	ctx, d := bounded(t), h.New(t)
	task, w := h.start(ctx, t, d, h.Serve())
	answers(ctx, t, task)
	r, err := d.Logs(ctx, w.ID, driver.LogOptions{Follow: true})
	if err != nil {
		t.Fatalf("logs: %v", err)
	}
	defer r.Close()
	ended := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, r)
		ended <- err
	}()
	select {
	case err := <-ended:
		t.Fatalf("the log ended (%v) while the workload runs", err)
	case <-time.After(100 * time.Millisecond):
	}
	if err := task.Stop(ctx, 10*time.Second); err != nil {
		t.Fatalf("stop: %v", err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("the log ended with %v", err)
		}
	case <-ctx.Done():
		t.Error("the log did not end with the run")
	}
}

func (h Harness) logFollowContext(t *testing.T) {
	ctx, d := bounded(t), h.New(t)
	task, w := h.start(ctx, t, d, h.Serve())
	answers(ctx, t, task)
	reading, cancel := context.WithCancel(ctx)
	defer cancel()
	r, err := d.Logs(reading, w.ID, driver.LogOptions{Follow: true})
	if err != nil {
		t.Fatalf("logs: %v", err)
	}
	defer r.Close()
	ended := make(chan struct{})
	go func() {
		io.Copy(io.Discard, r)
		close(ended)
	}()
	cancel()
	select {
	case <-ended:
	case <-ctx.Done():
		t.Error("the log goes on after its context has ended")
	}
	answers(ctx, t, task)
}
