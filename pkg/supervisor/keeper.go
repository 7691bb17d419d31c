package supervisor

import (
	"context"
	"sync"
	"time"

	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

const stopGrace = 10 * time.Second

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

// finish persists a final status; the zero status clears it. It reports false, after a
// while, if that is to be tried again: the disk may be full.
func (k *keeper) finish(ctx context.Context, st mesh.Status) bool {
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
	if err != nil && mesh.KindOf(err) != mesh.NotFound {
		return k.retry(ctx, "cannot record how a workload ended", err)
	}
	return true
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
