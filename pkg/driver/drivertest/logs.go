package drivertest

import (
	"context"
	"fmt"
	"io"
	"slices"
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
	b, err := io.ReadAll(io.LimitReader(driver.PlainLog(r), maxLog))
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

// logTimes: every entry says when it was written and on which stream, and can be
// chosen by either.
func (h Harness) logTimes(t *testing.T) {
	ctx, d := bounded(t), h.New(t)
	task, w := h.start(ctx, t, d, h.Print(20, 0))
	if _, err := task.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	r, err := d.Logs(ctx, w.ID, driver.LogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var at []time.Time
	for {
		e, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e.Stream != mesh.Stdout || e.Time.Before(w.Created.Add(-time.Second)) || e.Time.After(time.Now().Add(time.Second)) {
			t.Errorf("%q is of %s, from %s", e.Text, e.Time, e.Stream)
		}
		at = append(at, e.Time)
	}
	if len(at) != 20 || !slices.IsSortedFunc(at, time.Time.Compare) {
		t.Fatalf("%d entries, at %v", len(at), at)
	}
	// Lines that were written together may have one time.
	mid := at[10]
	first := slices.IndexFunc(at, func(a time.Time) bool { return !a.Before(mid) })
	want := ""
	for i := first; i < len(at); i++ {
		want += fmt.Sprintf("line %d\n", i+1)
	}
	if got := readLog(ctx, t, d, w.ID, driver.LogOptions{Since: mid}); got != want {
		t.Errorf("since %s: got %q, want %q", mid, got, want)
	}
	if got := readLog(ctx, t, d, w.ID, driver.LogOptions{Since: time.Now().Add(time.Hour)}); got != "" {
		t.Errorf("since a time to come: got %q", got)
	}
	if got := readLog(ctx, t, d, w.ID, driver.LogOptions{Stream: mesh.Stderr}); got != "" {
		t.Errorf("stderr alone: got %q", got)
	}
	if got := readLog(ctx, t, d, w.ID, driver.LogOptions{Stream: mesh.Stdout, Tail: 1}); got != "line 20\n" {
		t.Errorf("the last of stdout: got %q", got)
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
		_, err := io.Copy(io.Discard, driver.PlainLog(r))
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
		io.Copy(io.Discard, driver.PlainLog(r))
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
