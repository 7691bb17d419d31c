package jobs

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

// This file decides which job runs next, and runs it.

// mayBegin reports whether an owner that has mine of all runs may begin one more.
// The first of an owner always may: nobody waits for other owners' jobs to end.
func mayBegin(slots, all, mine int) bool {
	return mine == 0 || all < slots && mine < max(1, slots/2)
}

// turns is the order in which owners are asked: those after the one that began last
// come first.
func turns(owners []mesh.PeerID, last mesh.PeerID) []mesh.PeerID {
	slices.Sort(owners)
	i := slices.IndexFunc(owners, func(p mesh.PeerID) bool { return p > last })
	if i < 0 {
		i = 0
	}
	return append(slices.Clone(owners[i:]), owners[:i]...)
}

// dispatch begins as many jobs as may begin, in one transaction.
func (q *Queue) dispatch(ctx context.Context, work *sync.WaitGroup) error {
	var begun []Job
	undo := func() {
		for _, j := range begun {
			q.cfg.Undo(j)
		}
		begun = nil
	}
	empty := true
	if err := q.cfg.Store.View(func(tx *store.Tx) error {
		owners, err := waiting(tx)
		empty = len(owners) == 0
		return err
	}); err != nil || empty {
		return err
	}
	var last mesh.PeerID
	admit := q.cfg.Admit(ctx)
	err := q.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		undo() // the function may run more than once
		q.mu.Lock()
		held, all := map[mesh.PeerID]int{}, len(q.live)
		for p, n := range q.held {
			held[p] = n
		}
		last = q.last
		q.mu.Unlock()
		owners, err := waiting(tx)
		if err != nil {
			return err
		}
		for order := turns(owners, last); len(order) > 0; {
			var again []mesh.PeerID
			for _, p := range order {
				if !mayBegin(q.cfg.Slots, all, held[p]) {
					continue
				}
				j, ok, err := q.beginFirst(tx, p, admit)
				if err != nil {
					return err
				}
				if !ok {
					continue
				}
				again = append(again, p)
				if j.State == Running {
					begun = append(begun, j)
					held[p]++
					all++
					last = p
				}
			}
			order = again
		}
		return nil
	})
	if err != nil {
		undo()
		return err
	}
	q.mu.Lock()
	q.last = last
	q.mu.Unlock()
	for _, j := range begun {
		r, rctx := q.register(ctx, j)
		work.Go(func() { q.run(ctx, rctx, r) })
	}
	if len(begun) > 0 {
		q.notify()
	}
	return nil
}

// beginFirst begins the first job of an owner. It reports false if that has to wait;
// a job that may not run at all is finished instead.
func (q *Queue) beginFirst(tx *store.Tx, p mesh.PeerID, admit func(*store.Tx, Job) error) (Job, bool, error) {
	j, ok, err := first(tx, p)
	if err != nil || !ok {
		return j, false, err
	}
	if refused := admit(tx, j); refused != nil {
		e := mesh.AsError(refused)
		if mustWait(e) {
			return j, false, nil
		}
		j.Ended = q.cfg.Now().UTC()
		j.Exit = mesh.Exit{Code: exitKilled, Kind: e.Kind, Reason: e.Msg}
		_, err := finish(tx, q.cfg.Limits, j)
		return j, err == nil, err
	}
	j, err = begin(tx, q.cfg.Now().UTC(), j)
	return j, err == nil, err
}

// mustWait reports whether a refusal is one that time may lift.
func mustWait(e *mesh.Error) bool {
	return e.Kind == mesh.Quota || e.Kind == mesh.Overloaded || e.Kind == mesh.Unavailable || e.Kind == mesh.Internal ||
		strings.HasPrefix(e.Rule, "host.")
}

func (q *Queue) register(ctx context.Context, j Job) (*run, context.Context) {
	ctx, cancel := context.WithCancelCause(ctx)
	over := func() { cancel(errOutput) }
	r := &run{job: j, cancel: cancel, refs: 1, spools: map[part]*spool{
		partOutput: newSpool(q.outputFile(j.ID, partOutput), q.cfg.Output, over),
		partLog:    newSpool(q.outputFile(j.ID, partLog), q.cfg.Limits.Log, over),
	}}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.live[j.ID] = r
	q.held[j.Owner]++
	return r, ctx
}

// run is the life of one run of a job, whose context is ctx. life is the queue's.
func (q *Queue) run(life, ctx context.Context, r *run) {
	q.mu.Lock()
	j := r.job
	q.mu.Unlock()
	res, err := q.cfg.Execute(ctx, j, r.spools[partOutput], r.spools[partLog])
	cause := context.Cause(ctx)
	r.cancel(nil)
	switch {
	case cause != nil && !errors.Is(cause, errCanceled) && !errors.Is(cause, errOutput):
		// peerd stops: the job is still running as far as the disk knows, and will
		// run again. What it did so far leaves no trace.
	case err == nil && res.Again && !errors.Is(cause, errCanceled) && !errors.Is(cause, errOutput):
		q.insist(life, "cannot queue a job again", j, func() error { return q.putBack(j) })
	default:
		if res.Again {
			res = Result{Exit: canceled}
		}
		if err != nil {
			e := mesh.AsError(err)
			res = Result{Exit: mesh.Exit{Code: exitKilled, Kind: e.Kind, Reason: e.Msg}}
		}
		if errors.Is(cause, errOutput) {
			res.Exit.Kind, res.Exit.Reason = mesh.TooLarge, "its output is over what is kept of a job"
		}
		q.insist(life, "cannot record what came of a job", j, func() error { return q.record(r, res) })
	}
	for _, s := range r.spools {
		s.close()
	}
	q.mu.Lock()
	delete(q.live, j.ID)
	owner := r.job.Owner // it may have changed its key meanwhile
	if q.held[owner]--; q.held[owner] <= 0 {
		delete(q.held, owner)
	}
	q.mu.Unlock()
	q.letGo(r)
	q.cfg.Release(j)
	q.notify()
	q.Kick()
}

// insist writes down how a run ended, and while the disk is full tries again. What is
// not written down when ctx ends runs again at the next start.
func (q *Queue) insist(ctx context.Context, what string, j Job, write func() error) {
	t := time.NewTicker(poll)
	defer t.Stop()
	for {
		err := write()
		if err == nil {
			return
		}
		q.cfg.Log.Error(what, "job", j.ID, "err", err)
		if mesh.AsError(err).Rule != mesh.RuleDisk {
			return
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// putBack queues a job again whose run does not count.
func (q *Queue) putBack(j Job) error {
	return q.cfg.Store.Update(context.Background(), func(tx *store.Tx) error {
		now, err := Get(tx, j.ID)
		if err != nil || now.State != Running || now.Attempts != j.Attempts {
			return err
		}
		if now.Canceled {
			now.Ended, now.Exit = q.cfg.Now().UTC(), canceled
			_, err := finish(tx, q.cfg.Limits, now)
			return err
		}
		now.Attempts--
		return requeue(tx, now)
	})
}

// letGo ends one use of a run's outputs.
func (q *Queue) letGo(r *run) {
	q.mu.Lock()
	r.refs--
	last := r.refs == 0
	q.mu.Unlock()
	if last {
		for _, s := range r.spools {
			s.release()
		}
	}
}

// record makes the result of a run the job's, unless another one is already: outputs
// first, then in one transaction all that refers to them.
func (q *Queue) record(r *run, res Result) error {
	ctx := context.Background() // it happened: it is recorded also while peerd stops
	out, output, err := r.spools[partOutput].end()
	log, logged, lerr := r.spools[partLog].end()
	if err := errors.Join(err, lerr); err != nil {
		res.Exit.Kind, res.Exit.Reason = mesh.Internal, "its output could not be kept"
		res.Exit.Code = exitKilled
		q.cfg.Log.Error("cannot keep the output of a job", "job", r.job.ID, "err", err)
	}
	if output.File || logged.File {
		if err := syncDir(q.cfg.Dir); err != nil {
			return err
		}
	}
	var dropped []mesh.WorkloadID
	err = q.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		dropped = nil
		j, err := Get(tx, r.job.ID)
		if err != nil {
			return err
		}
		if j.State != Running || j.Attempts != r.job.Attempts {
			return mesh.Errorf(mesh.Conflict, "job %s has a result already", j.ID)
		}
		j.Ended, j.Exit, j.Receipt = q.cfg.Now().UTC(), res.Exit, res.Receipt
		j.Output, j.Log, j.Record = output, logged, Stored{Size: int64(len(res.Record))}
		for p, b := range map[part][]byte{partOutput: out, partLog: log, partRecord: res.Record} {
			if len(b) == 0 {
				continue
			}
			if err := tx.Put(store.Outputs, outputKey(j.ID, p), b); err != nil {
				return err
			}
		}
		if res.Keep != nil {
			if err := res.Keep(tx); err != nil {
				return err
			}
		}
		dropped, err = finish(tx, q.cfg.Limits, j)
		return err
	})
	if err != nil {
		return err
	}
	if res.Kept != nil {
		res.Kept()
	}
	q.removeFiles(dropped)
	return nil
}
