package supervisor

import (
	"context"
	"time"

	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
)

// This file is what the machine's owner does to workloads that are wanted: it holds
// them back for a while. A hold is never written down. It follows at each moment
// from the owner's policy, the grant and the clock, so it is found again after a
// crash, and what is desired is never lost to it.

// Level is how far a hold goes.
type Level int

// The levels, each more than the one before.
const (
	Free    Level = iota
	NoStart       // what runs goes on to its end, and nothing is started
	Pause         // frozen where the runtime can; a service that cannot be frozen is ended, a job goes on
	End           // ended, and started again when the hold is over
)

// Hold is what the owner allows a workload now. The zero value lets it run.
type Hold struct {
	Level  Level
	Reason string    // one line for people, shown with the state
	Until  time.Time // when it may be over; zero = nobody can say
}

// Max is the stricter of two holds.
func (h Hold) Max(o Hold) Hold {
	if o.Level > h.Level {
		return o
	}
	return h
}

// stays reports whether a run of w that is under way goes on under h.
func (h Hold) stays(w mesh.Workload) bool {
	return h.Level <= NoStart || h.Level == Pause && w.Spec.Shape == mesh.Job
}

// mustYield reports whether the run that is under way cannot go on as it is.
func (k *keeper) mustYield(w mesh.Workload) bool {
	h := k.sup.cfg.Hold(w)
	k.mu.Lock()
	starting := k.task == nil
	k.mu.Unlock()
	return h.Level != Free && (starting || !h.stays(w))
}

// hold brings a wanted workload to what h allows, and waits for news.
func (k *keeper) hold(ctx context.Context, w mesh.Workload, h Hold, past *history) {
	k.mu.Lock()
	t := k.task
	k.mu.Unlock()
	switch p, can := t.(driver.Pauser); {
	case t == nil:
		k.showHeld(h)
		k.idle(ctx)
	case h.stays(w):
		if k.thaw(ctx) { // what a greater hold froze
			k.pursue(ctx, w, past)
		}
	case h.Level == Pause && can:
		k.freeze(ctx, w, t, p, h)
	case k.stop(ctx, w):
		k.showHeld(h)
		k.idle(ctx)
	}
}

func (k *keeper) showHeld(h Hold) {
	k.mu.Lock()
	same := k.status.State == mesh.Paused && k.status.Reason == h.Reason
	k.mu.Unlock()
	if !same {
		k.set(mesh.Paused, h.Reason)
	}
}

// freeze pauses the run and waits for news, or for its end: somebody may end it
// behind our back.
func (k *keeper) freeze(ctx context.Context, w mesh.Workload, t driver.Task, p driver.Pauser, h Hold) {
	if err := p.Pause(ctx); err != nil {
		k.retry(ctx, "cannot pause it", err)
		return
	}
	k.showHeld(h)
	waitCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	over := make(chan error, 1)
	go func() {
		_, err := t.Wait(waitCtx)
		over <- err
	}()
	select {
	case <-k.kick:
		cancel()
		<-over
	case err := <-over:
		if err == nil {
			k.ended(w, t)
		} else {
			k.retry(ctx, "cannot watch it", err)
		}
	}
}

// thaw lets a frozen run go on, also one that a former peerd froze. It reports
// whether the workload may be pursued.
func (k *keeper) thaw(ctx context.Context) bool {
	k.mu.Lock()
	p, can := k.task.(driver.Pauser)
	k.mu.Unlock()
	if !can {
		return true
	}
	if err := p.Resume(ctx); err != nil {
		return k.retry(ctx, "cannot resume it", err)
	}
	return true
}
