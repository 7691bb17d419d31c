package supervisor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

// This file is how one revision takes another's place.

// beside looks after a run that does not serve. It reports whether nothing is left
// of it.
func (k *keeper) beside(ctx context.Context, r Record, role role, h *history) (done bool) {
	w := r.work(k.run)
	if role == coming && r.Desired == Run {
		switch {
		case r.Next.Last.State.Final():
			k.settle()
			k.sup.poke(k.id) // what made room for it comes back
			k.update(func(s *mesh.Status) { *s = r.Next.Last })
			k.idle(ctx)
		case r.yields() && !k.sup.quiet(k.id, r.Current()):
			k.set(mesh.Pending, "waiting for the revision before it to end")
			k.idle(ctx)
		default:
			k.goOn(ctx, w, h)
		}
		return false
	}
	if role == leaving && r.Desired == Run {
		k.drain(ctx, w)
	}
	return k.stop(ctx, w) && k.discard(ctx) && k.leave(ctx)
}

// makeRoom shows that what serves is stopped for the next revision, and tells that.
func (k *keeper) makeRoom(r Record) {
	k.set(mesh.Pending, fmt.Sprintf("stopped to make room for revision %d", r.Next.Revision))
	k.sup.poke(k.id)
}

// errMoot says that the record wants something else by now.
var errMoot = errors.New("the record has changed")

// takeOver makes this run, which is ready, the one that serves. It reports whether it
// is that now, or was before.
func (k *keeper) takeOver(ctx context.Context) bool {
	if k.reached() {
		return true
	}
	k.mu.Lock()
	digest := k.status.Digest
	k.mu.Unlock()
	var revision int
	err := k.sup.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		r, err := Get(tx, k.id)
		if err != nil {
			return err
		}
		revision = r.Serving()
		if r.role(k.run) == serving {
			return nil
		}
		if !r.wants(k.run) {
			return errMoot
		}
		if err := editRevision(tx, k.id, r.Next.Revision, func(v *Revision) { v.Served, v.Digest = true, digest }); err != nil {
			return err
		}
		if before, _ := k.sup.StatusOf(k.id, r.Current()); before.Digest != "" {
			if err := editRevision(tx, k.id, r.Serving(), func(v *Revision) { v.Digest = before.Digest }); err != nil {
				return err
			}
		}
		r.takeOver()
		r.Answered = true
		revision = r.Serving()
		return Put(tx, r)
	})
	if err != nil {
		if !errors.Is(err, errMoot) && ctx.Err() == nil {
			k.sup.cfg.Log.Error("cannot switch to the new revision; trying again", "workload", k.id, "err", err)
			sleep(ctx, time.Second)
		}
		return false
	}
	k.sup.switchTo(k, revision)
	k.update(func(*mesh.Status) {}) // it is the workload's own now
	return true
}

// drain waits until the connections that this run was lent to have ended, for a while.
func (k *keeper) drain(ctx context.Context, w mesh.Workload) {
	k.mu.Lock()
	if k.lent == 0 || k.task == nil {
		k.mu.Unlock()
		return
	}
	empty := make(chan struct{})
	k.empty = empty
	k.mu.Unlock()
	k.set(mesh.Stopping, "its last connections end")
	enough := time.NewTimer(k.sup.cfg.Drain)
	defer enough.Stop()
	for {
		select {
		case <-empty:
			return
		case <-enough.C:
			return
		case <-k.kick:
			if r, err := k.load(); err != nil || r.Desired != Run || k.sup.cfg.Hold(w).Level > NoStart {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// returned notes that a connection has ended.
func (k *keeper) returned() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lent--
	if k.lent == 0 && k.empty != nil {
		close(k.empty)
		k.empty = nil
	}
}

// leave takes a run that is ended out of the record.
func (k *keeper) leave(ctx context.Context) bool {
	err := k.sup.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		r, err := Get(tx, k.id)
		if err != nil {
			if mesh.KindOf(err) == mesh.NotFound {
				return nil
			}
			return err
		}
		if r.role(k.run) == serving {
			return mesh.Errorf(mesh.Internal, "the run %s serves", k.run) // never: a run that ends does not come back
		}
		if r.role(k.run) == gone {
			return nil
		}
		if n := r.Next; n.pending() && n.Run == k.run {
			if err := editRevision(tx, k.id, n.Revision, func(v *Revision) { v.Failure = "the workload was stopped before it was ready" }); err != nil {
				return err
			}
		}
		r.drop(k.run)
		return Put(tx, r)
	})
	if err != nil {
		return k.retry(ctx, "cannot record that an old run has ended", err)
	}
	return true
}
