package supervisor

import (
	"context"
	"fmt"
	"time"

	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

// This file runs a workload once, and decides by how that ended whether it is tried again.

const (
	stableAfter   = 10 * time.Second // a run this long makes earlier failures forgotten
	firstAttempts = 3                // a workload that never answered is given up after this many
)

// history is what restarts are decided by.
type history struct {
	failures int  // in a row
	answered bool // ever, in this life of peerd or, if it serves, a former one
}

// outcome is how one run came to its end.
type outcome struct {
	exit  *mesh.Exit
	err   error // it could not be started or watched
	ready bool
	moot  bool // the record wants something else by now
	late  bool // it ran, and was ended because it did not become ready; err says so
	old   bool // it was adopted: it had been ready, as far as anyone knows
	ran   time.Duration
}

// pursue runs the workload once and then decides what follows. It returns early
// when the record says something else.
func (k *keeper) pursue(ctx context.Context, w mesh.Workload, h *history) {
	runCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	result := make(chan outcome, 1)
	go func() { result <- k.once(runCtx, w) }()
	var out outcome
	for waiting := true; waiting; {
		select {
		case out = <-result:
			waiting = false
		case <-k.kick:
			if r, err := k.load(); err != nil || !r.wants(k.run) || k.mustYield(w) {
				cancel()
				<-result
				return
			}
		}
	}
	if ctx.Err() != nil || out.moot {
		return
	}
	h.answered = h.answered || out.ready
	if out.ran > stableAfter {
		h.failures = 0
	}
	st, again := decide(w.Spec, out, h)
	if !again {
		final := k.update(func(s *mesh.Status) {
			*s = mesh.Status{State: st.State, ExitCode: st.ExitCode, Reason: st.Reason, Since: k.sup.cfg.Now(), Restarts: s.Restarts, Digest: s.Digest}
		})
		for ctx.Err() == nil && !k.finish(ctx, final) { // unrecorded, it would be run again
		}
		return
	}
	h.failures++
	k.update(func(s *mesh.Status) {
		*s = mesh.Status{State: mesh.Pending, Reason: st.Reason + "; starting again", ExitCode: st.ExitCode, Since: k.sup.cfg.Now(), Restarts: s.Restarts + 1, Digest: s.Digest}
	})
	timer := time.NewTimer(backoff(h.failures - 1))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-k.kick:
	case <-ctx.Done():
	}
}

// once prepares, starts and watches one run, or goes on watching an adopted one.
func (k *keeper) once(ctx context.Context, w mesh.Workload) (out outcome) {
	k.mu.Lock()
	t := k.task
	k.work = w
	k.mu.Unlock()
	adopted := t != nil
	if t == nil {
		k.set(mesh.Pulling, "")
		digest, err := k.driver.Prepare(ctx, w, func(p mesh.Progress) {
			k.update(func(s *mesh.Status) { s.Progress = &p })
		})
		if err != nil {
			return outcome{err: err}
		}
		k.update(func(s *mesh.Status) { s.Digest, s.Progress = digest, nil })
		k.set(mesh.Starting, "")
		if t, err = k.driver.Start(ctx, w); err != nil {
			return outcome{err: err}
		}
		k.setTask(t)
	}
	began := time.Now()
	exited := make(chan struct{})
	waitCtx, stopWaiting := context.WithCancel(ctx)
	go func() {
		defer close(exited)
		x, err := t.Wait(waitCtx)
		if err != nil {
			out.err = err
		} else {
			out.exit = &x
		}
	}()
	ready, why := k.awaitReady(waitCtx, t, w.Spec, exited)
	if !ready && ctx.Err() == nil && !closed(exited) {
		// It runs but does not answer, or not well: that is a failed start.
		err := t.Stop(ctx, stopGrace)
		stopWaiting()
		<-exited
		if err != nil { // it may run on, so it is not let go
			k.sup.cfg.Log.Error("cannot stop a workload that does not answer", "workload", k.id, "err", err)
			return outcome{err: mesh.Errorf(mesh.Unavailable, "%s within %s, and cannot be stopped", why, k.sup.cfg.Ready).Because(err)}
		}
		k.ended(w, t)
		return outcome{err: mesh.Errorf(mesh.Timeout, "%s within %s", why, k.sup.cfg.Ready), late: true, old: adopted && k.reached()}
	}
	var ill *sick
	if ready {
		k.running(w.Spec)
		if !k.takeOver(ctx) {
			stopWaiting()
			<-exited
			return outcome{moot: true}
		}
		noted := make(chan struct{})
		go func() {
			defer close(noted)
			k.noteAnswered(waitCtx)
		}()
		defer func() { <-noted }()
		ill = k.untilSick(waitCtx, t, w.Spec, exited)
	}
	if ill != nil {
		if err := t.Stop(ctx, stopGrace); err != nil {
			k.sup.cfg.Log.Error("cannot stop a workload that is unhealthy", "workload", k.id, "err", err)
			stopWaiting()
		}
	}
	<-exited
	stopWaiting()
	out.ready, out.ran = ready, time.Since(began)
	if ill != nil && ctx.Err() == nil {
		code := 0
		if out.exit != nil {
			code = out.exit.Code
		}
		out.exit, out.err = &mesh.Exit{Code: code, Kind: mesh.Unavailable, Reason: mesh.Unhealthy(ill.why)}, nil
		out.ran = ill.well
	}
	if out.exit != nil {
		k.ended(w, t)
	}
	return out
}

// running shows that the workload answers.
func (k *keeper) running(spec mesh.Spec) {
	k.update(func(s *mesh.Status) {
		*s = mesh.Status{State: mesh.Running, Since: k.sup.cfg.Now(), Restarts: s.Restarts, Digest: s.Digest}
		if spec.Health != nil {
			s.Health = mesh.HealthOK
		}
	})
}

// noteAnswered records that what serves has answered, unless it ends first. After a restart
// of the machine it may wait for something else that is not there yet, and is not to be
// given up for that. There is no hurry, and whoever waits for it comes first.
func (k *keeper) noteAnswered(ctx context.Context) {
	if r, err := k.load(); err != nil || r.Answered || !sleep(ctx, time.Second) {
		return
	}
	err := k.sup.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		r, err := Get(tx, k.id)
		if err != nil || r.Answered || r.role(k.run) != serving {
			return err
		}
		r.Answered = true
		return Put(tx, r)
	})
	if err != nil && ctx.Err() == nil {
		k.sup.cfg.Log.Error("cannot record that a workload has answered", "workload", k.id, "err", err)
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// awaitReady dials the workload until it answers, or asks it until it is well. One
// without a port or a health check is ready as soon as it is started. why is what was
// missing to the end.
func (k *keeper) awaitReady(ctx context.Context, t driver.Task, s mesh.Spec, exited <-chan struct{}) (ready bool, why string) {
	if s.Health == nil && (s.Runtime == mesh.Container && s.Port == 0 || s.Shape == mesh.Job) {
		return !closed(exited), ""
	}
	ctx, cancel := context.WithTimeout(ctx, k.sup.cfg.Ready)
	defer cancel()
	answers := func() bool {
		c, err := t.Dial(ctx)
		if err != nil {
			why = fmt.Sprintf("it did not answer on port %d", s.Port)
			return false
		}
		c.Close()
		return true
	}
	if s.Health != nil {
		h := s.Health.WithDefaults()
		answers = func() bool {
			bad := ask(ctx, t, h)
			if bad != "" && (ctx.Err() == nil || why == "") { // what the end of the wait broke off says nothing
				why = "it did not become healthy (" + bad + ")"
			}
			return bad == ""
		}
	}
	for pause := 2 * time.Millisecond; ; pause = min(pause*3/2, 250*time.Millisecond) {
		if answers() {
			return true, ""
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-exited:
			timer.Stop()
			return false, why
		case <-ctx.Done():
			timer.Stop()
			return false, why
		}
	}
}

// decide says what follows a run: the status to show, and whether to start again.
func decide(s mesh.Spec, out outcome, h *history) (mesh.Status, bool) {
	if out.err != nil {
		e := mesh.AsError(out.err)
		st := mesh.Status{State: mesh.Failed, Reason: e.Error()}
		if out.late && (h.answered || out.old) { // it was good once
			return st, s.Restart != mesh.RestartNo
		}
		switch e.Kind {
		case mesh.Unavailable, mesh.Internal: // the runtime's trouble, not the workload's
			return st, e.Kind == mesh.Unavailable || h.failures+1 < firstAttempts || h.answered
		}
		return st, false
	}
	st := mesh.Status{State: mesh.Exited, ExitCode: out.exit.Code, Reason: out.exit.Reason}
	bad := out.exit.Code != 0 || out.exit.Kind != 0
	if st.Reason == "" {
		st.Reason = fmt.Sprintf("exited with code %d", out.exit.Code)
	}
	again := s.Restart == mesh.RestartAlways || (s.Restart == mesh.RestartOnFailure && bad)
	if again && !h.answered && h.failures+1 >= firstAttempts {
		st.State = mesh.Failed
		st.Reason = fmt.Sprintf("%s before it answered, %d times", st.Reason, h.failures+1)
		return st, false
	}
	return st, again
}
