package drivertest

import (
	"context"
	"testing"
	"time"

	"peercompute/pkg/driver"
)

// freeze is for runtimes whose tasks can be frozen: such a task answers nothing, is
// found frozen after a restart, goes on, and can be stopped and removed frozen.
func (h Harness) freeze(t *testing.T) {
	ctx, d := bounded(t), h.New(t)
	task, w := h.start(ctx, t, d, h.Serve())
	p, ok := task.(driver.Pauser)
	if !ok {
		t.Log("tasks of this runtime cannot be frozen: what is paused is stopped instead, which the supervisor's tests look at")
		return
	}
	answers(ctx, t, task)
	if err := p.Resume(ctx); err != nil {
		t.Errorf("resume of one that is not frozen: %v", err)
	}
	for range 2 { // again is no error
		if err := p.Pause(ctx); err != nil {
			t.Fatalf("pause: %v", err)
		}
	}
	silent(ctx, t, task)
	if h.Outlives {
		found, err := h.New(t).Adopt(ctx)
		if err != nil {
			t.Fatal(err)
		}
		p = nil
		for _, other := range found {
			if other.ID() == w.ID {
				task, p = other, other.(driver.Pauser)
			}
		}
		if p == nil {
			t.Fatal("a frozen task was not adopted")
		}
		silent(ctx, t, task)
	}
	for range 2 {
		if err := p.Resume(ctx); err != nil {
			t.Fatalf("resume: %v", err)
		}
	}
	answers(ctx, t, task)

	if err := p.Pause(ctx); err != nil {
		t.Fatalf("pause: %v", err)
	}
	began := time.Now()
	if err := task.Stop(ctx, 20*time.Second); err != nil {
		t.Fatalf("stop of a frozen task: %v", err)
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("a frozen task took %s to stop: it was not asked politely", took)
	}
	if _, err := task.Wait(ctx); err != nil {
		t.Errorf("wait after stop: %v", err)
	}
	if err := p.Pause(ctx); err != nil {
		t.Errorf("pause of an ended task: %v", err)
	}

	task, w = h.start(ctx, t, d, h.Serve())
	answers(ctx, t, task)
	if err := task.(driver.Pauser).Pause(ctx); err != nil {
		t.Fatal(err)
	}
	if err := d.Remove(ctx, w.ID); err != nil {
		t.Errorf("remove of a frozen task: %v", err)
	}
}

// silent requires that the task does not answer for a while.
func silent(ctx context.Context, t testing.TB, task driver.Task) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 700*time.Millisecond)
	defer cancel()
	if body, err := get(ctx, task); err == nil {
		t.Errorf("a frozen task answers %q", body)
	}
}
