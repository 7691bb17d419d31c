package supervisor

import (
	"context"
	"fmt"
	"sync"
	"time"

	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

const (
	stopGrace     = 10 * time.Second
	stableAfter   = 10 * time.Second // a run this long makes earlier failures forgotten
	firstAttempts = 3                // a workload that never answered is given up after this many
)

// keeper brings one run of a workload to what its record wants.
type keeper struct {
	sup    *Supervisor
	id     mesh.WorkloadID // of the workload
	run    mesh.WorkloadID // under which the runtime knows this run
	driver driver.Driver
	kick   chan struct{}

	mu      sync.Mutex
	status  mesh.Status
	changed chan struct{}
	task    driver.Task
	work    mesh.Workload // of the task, as its runtime sees it
	settled bool          // with no task: it was looked at, and nothing runs
	lent    int           // connections that it was lent to
	empty   chan struct{} // closed when lent becomes 0; nil = nobody waits
}

func (k *keeper) poke() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

func (k *keeper) publish() {
	k.mu.Lock()
	close(k.changed)
	k.changed = make(chan struct{})
	k.mu.Unlock()
}

// set changes the status. Fields that outlast a state are carried over.
func (k *keeper) set(state mesh.State, reason string) mesh.Status {
	return k.update(func(s *mesh.Status) {
		*s = mesh.Status{State: state, Reason: reason, Since: k.sup.cfg.Now(), Restarts: s.Restarts, Digest: s.Digest}
	})
}

func (k *keeper) update(f func(*mesh.Status)) mesh.Status {
	k.mu.Lock()
	f(&k.status)
	s := k.status
	k.mu.Unlock()
	k.publish()
	if k.reached() {
		k.sup.cfg.OnStatus(k.id, s)
	} else {
		k.sup.stir(k.id)
	}
	return s
}

// reached reports whether this is the run that connections reach.
func (k *keeper) reached() bool { return k.sup.keeper(k.id) == k }

func (k *keeper) setTask(t driver.Task) {
	k.mu.Lock()
	k.task, k.settled = t, false
	k.mu.Unlock()
}

func (k *keeper) supervise(ctx context.Context) {
	var h history
	for ctx.Err() == nil {
		r, err := k.load()
		if mesh.KindOf(err) == mesh.NotFound {
			k.discard(ctx)
			return
		}
		if err != nil {
			k.set(mesh.Failed, "its record cannot be read")
			k.sup.cfg.Log.Error("cannot read a workload's record", "workload", k.id, "err", err)
			return
		}
		if role := r.role(k.run); role != serving {
			if k.beside(ctx, r, role, &h) {
				return
			}
			continue
		}
		if !k.reached() {
			k.sup.switchTo(k, r.Serving())
		}
		w := r.work(k.run)
		switch {
		case r.Desired == Remove:
			if !k.stop(ctx, w) || !k.discard(ctx) {
				continue
			}
			if r.Next != nil || len(r.Retired) > 0 { // they go first
				k.idle(ctx)
			} else if k.forget(ctx) {
				return
			}
		case r.Desired == Stop:
			if k.stop(ctx, w) {
				k.finish(ctx, k.set(mesh.Stopped, ""))
				k.idle(ctx)
			}
		case r.yields():
			if k.stop(ctx, w) {
				k.makeRoom(r)
				k.idle(ctx)
			}
		case r.Restart != r.Restarted:
			if k.stop(ctx, w) && k.begun(ctx, r.Restart) {
				h = history{}
			}
		case r.Last.State.Final():
			if r.Last.State == mesh.Stopped { // wanted again
				k.finish(ctx, mesh.Status{})
				continue
			}
			k.update(func(s *mesh.Status) { *s = r.Last })
			k.idle(ctx)
		default:
			h.answered = h.answered || r.Answered
			k.goOn(ctx, w, &h)
		}
	}
}

// goOn runs the workload as far as the machine's owner lets it.
func (k *keeper) goOn(ctx context.Context, w mesh.Workload, h *history) {
	if hold := k.sup.cfg.Hold(w); hold.Level != Free {
		k.hold(ctx, w, hold, h)
	} else if k.thaw(ctx) {
		k.pursue(ctx, w, h)
	}
}

func (k *keeper) idle(ctx context.Context) {
	select {
	case <-k.kick:
	case <-ctx.Done():
	}
}

func (k *keeper) load() (r Record, err error) {
	err = k.sup.cfg.Store.View(func(tx *store.Tx) error { r, err = Get(tx, k.id); return err })
	return r, err
}

// finish persists a final status; the zero status clears it.
func (k *keeper) finish(ctx context.Context, st mesh.Status) {
	err := k.sup.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		r, err := Get(tx, k.id)
		if err != nil {
			return err
		}
		switch r.role(k.run) {
		case serving:
			r.Last = st
		case coming:
			r.Next.Last = st
			why := st.Reason
			if why == "" {
				why = string(st.State)
			}
			if err := editRevision(tx, k.id, r.Next.Revision, func(v *Revision) { v.Failure, v.Digest = why, st.Digest }); err != nil {
				return err
			}
		default:
			return nil
		}
		return Put(tx, r)
	})
	if err != nil && ctx.Err() == nil {
		k.sup.cfg.Log.Error("cannot record how a workload ended", "workload", k.id, "err", err)
	}
}

// begun notes that nothing keeps a new run, the n-th that was asked for, from beginning.
func (k *keeper) begun(ctx context.Context, n uint64) bool {
	err := k.sup.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		r, err := Get(tx, k.id)
		if err != nil {
			return err
		}
		r.Restarted, r.Last = n, mesh.Status{}
		return Put(tx, r)
	})
	if err != nil {
		return k.retry(ctx, "cannot record that it is started again", err)
	}
	k.set(mesh.Pending, "starting again, as was asked for")
	return true
}

// stop ends the current run. It reports whether nothing runs any more.
func (k *keeper) stop(ctx context.Context, w mesh.Workload) bool {
	k.mu.Lock()
	t := k.task
	k.mu.Unlock()
	if t == nil {
		k.settle()
		return true
	}
	k.set(mesh.Stopping, "")
	if err := t.Stop(ctx, stopGrace); err != nil {
		return k.retry(ctx, "cannot stop it", err)
	}
	k.ended(w, t)
	return true
}

// ended lets go of a run that is over.
func (k *keeper) ended(w mesh.Workload, t driver.Task) {
	k.sup.cfg.OnEnd(w, t)
	k.setTask(nil)
	k.settle()
}

// settle notes that nothing of the run executes.
func (k *keeper) settle() {
	k.mu.Lock()
	k.settled = k.task == nil
	k.mu.Unlock()
}

func (k *keeper) discard(ctx context.Context) bool {
	if err := k.driver.Remove(ctx, k.run); err != nil {
		return k.retry(ctx, "cannot remove it", err)
	}
	return true
}

func (k *keeper) forget(ctx context.Context) bool {
	err := k.sup.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		if err := ForgetHistory(tx, k.id); err != nil {
			return err
		}
		return tx.Delete(store.Workloads, []byte(k.id))
	})
	if err != nil {
		return k.retry(ctx, "cannot remove its record", err)
	}
	return true
}

// retry waits before the caller's loop tries again; it always returns false.
func (k *keeper) retry(ctx context.Context, what string, err error) bool {
	if ctx.Err() == nil {
		k.sup.cfg.Log.Error(what+"; trying again", "workload", k.id, "err", err)
		sleep(ctx, time.Second)
	}
	return false
}

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
		k.finish(ctx, final)
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
		if err := t.Stop(ctx, stopGrace); err != nil {
			k.sup.cfg.Log.Error("cannot stop a workload that does not answer", "workload", k.id, "err", err)
		}
		stopWaiting()
		<-exited
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
		k.noteAnswered(ctx)
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

// noteAnswered records that what serves has answered. After a restart of the machine it may
// wait for something else that is not there yet, and is not to be given up for that.
func (k *keeper) noteAnswered(ctx context.Context) {
	if r, err := k.load(); err != nil || r.Answered {
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
