package jobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"time"

	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

// Config is what New needs.
type Config struct {
	Store *store.Store
	Dir   string // of outputs; made if it is not there, and all in it is the queue's
	Now   func() time.Time
	Log   *slog.Logger
	Slots int // runs at the same time; 0 = two for each processor, at least four
	Limits

	// Admit is called before the transaction that begins jobs, and may ask others; what
	// it returns judges, in that transaction, whether a job may run now, and takes hold
	// of what it uses. A refusal that time may lift (Quota, Overloaded, Unavailable, and
	// all of the host's own rules) leaves the job queued; any other ends it.
	Admit func(ctx context.Context) func(tx *store.Tx, j Job) error
	// Undo lets go of what Admit took hold of outside of its transaction, which is not
	// committed. It is called within a transaction and must not begin another.
	Undo func(j Job)
	// Release lets go of all that Admit took hold of, once the run is over.
	Release func(j Job)
	// Execute runs a job to its end.
	Execute func(ctx context.Context, j Job, stdout, stderr io.Writer) (Result, error)
}

// Result is what came of a run.
type Result struct {
	Exit    mesh.Exit
	Receipt []byte
	Record  []byte
	// Keep is committed together with the result, and then Kept is called; nil = nothing.
	Keep func(tx *store.Tx) error
	Kept func()
	// Again says that the run was cut short and does not count: the job waits again.
	Again bool
}

// Queue runs jobs. Its methods may be called from many goroutines.
type Queue struct {
	cfg  Config
	wake chan struct{} // holds one token: look at the queue

	mu      sync.Mutex
	changed chan struct{} // closed at each change of a job
	live    map[mesh.WorkloadID]*run
	held    map[mesh.PeerID]int // runs under way, by owner
	last    mesh.PeerID         // who began a run last
}

// run is a job that runs now.
type run struct {
	job    Job
	cancel context.CancelCauseFunc
	spools map[part]*spool
	refs   int // readers, and the run itself
}

// New prepares a queue; nothing runs before Run.
func New(cfg Config) (*Queue, error) {
	cfg.Limits = cfg.Limits.withDefaults()
	if cfg.Slots == 0 {
		cfg.Slots = max(4, 2*runtime.NumCPU())
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the directory of jobs: %w", err)
	}
	return &Queue{
		cfg: cfg, wake: make(chan struct{}, 1), changed: make(chan struct{}),
		live: map[mesh.WorkloadID]*run{}, held: map[mesh.PeerID]int{},
	}, nil
}

// poll is how often the queue is looked at without being told: what a job waits for
// may be somebody else's to give back.
const poll = time.Second

// tidyEvery is how often files are looked for that belong to nothing any more.
const tidyEvery = 10 * time.Minute

// Run runs jobs until ctx ends, then ends those that run; they will run again.
func (q *Queue) Run(ctx context.Context) error {
	if err := q.recover(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // it stops before it has begun
		}
		return fmt.Errorf("cannot take up the queue of jobs: %w", err)
	}
	var work sync.WaitGroup
	defer work.Wait()
	t, clean := time.NewTicker(poll), time.NewTicker(tidyEvery)
	defer t.Stop()
	defer clean.Stop()
	for {
		if err := q.dispatch(ctx, &work); err != nil && ctx.Err() == nil {
			q.cfg.Log.Error("cannot begin jobs", "err", err)
		}
		select {
		case <-q.wake:
		case <-t.C:
		case <-clean.C:
			if err := q.tidy(); err != nil {
				q.cfg.Log.Warn("cannot remove old outputs of jobs", "err", err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// Kick makes the queue look at what waits.
func (q *Queue) Kick() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *Queue) notify() {
	q.mu.Lock()
	defer q.mu.Unlock()
	close(q.changed)
	q.changed = make(chan struct{})
}

// Changed is closed when some job has changed.
func (q *Queue) Changed() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.changed
}

// recover puts back what ran when the last life ended.
func (q *Queue) recover(ctx context.Context) error {
	err := q.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		var cut []Job
		err := Each(tx, func(j Job) error {
			if j.State == Running {
				cut = append(cut, j)
			}
			return nil
		})
		for _, j := range cut {
			if err != nil {
				return err
			}
			switch {
			case j.Canceled:
				j.Ended, j.Exit = q.cfg.Now().UTC(), canceled
				_, err = finish(tx, q.cfg.Limits, j)
			case j.Attempts >= maxAttempts:
				j.Ended = q.cfg.Now().UTC()
				j.Exit = mesh.Exit{Code: exitKilled, Kind: mesh.Interrupted, Reason: fmt.Sprintf("this machine stopped %d times while it ran", j.Attempts)}
				_, err = finish(tx, q.cfg.Limits, j)
			default:
				err = requeue(tx, j)
			}
		}
		return err
	})
	return errors.Join(err, q.tidy())
}

// exitKilled is the exit status of what was ended from outside, as shells give it.
const exitKilled = 137

var canceled = mesh.Exit{Code: exitKilled, Kind: mesh.Canceled, Reason: "canceled"}

// Submission is a job that is to be queued: what to commit, and what to call once
// that is on disk. Job is valid after the commit.
type Submission struct {
	Job    Job
	Commit func(tx *store.Tx) error
	After  func()
}

// Submit prepares to queue a job. Its ID, owner, spec and what it is given are set
// by the caller.
func (q *Queue) Submit(j Job) (*Submission, error) {
	if err := j.Validate(); err != nil {
		return nil, err
	}
	j.Submitted = q.cfg.Now().UTC()
	s := &Submission{Job: j, After: q.Kick}
	s.Commit = func(tx *store.Tx) (err error) {
		s.Job, err = submit(tx, q.cfg.Limits, j)
		return err
	}
	return s, nil
}

// Cancel ends a job of owner: at once if it waits, else as soon as its run stops. A
// job that is done stays as it is.
func (q *Queue) Cancel(tx *store.Tx, id mesh.WorkloadID, mine func(Job) error) error {
	j, err := Get(tx, id)
	if err == nil {
		err = mine(j)
	}
	if err != nil || j.State == Done {
		return err
	}
	j.Canceled = true
	if j.State == Running {
		return put(tx, j)
	}
	j.Ended, j.Exit = q.cfg.Now().UTC(), canceled
	_, err = finish(tx, q.cfg.Limits, j)
	return err
}

// Stop ends the run of a job, if there is one: to be called once Cancel is on disk.
func (q *Queue) Stop(id mesh.WorkloadID) {
	q.mu.Lock()
	if r := q.live[id]; r != nil {
		r.cancel(errCanceled)
	}
	q.mu.Unlock()
	q.notify()
}

var errCanceled = errors.New("canceled")

// CancelAll ends every job that which says, and lists them. note is called for each
// in the transaction that decides it.
func (q *Queue) CancelAll(ctx context.Context, which func(Job) bool, note func(*store.Tx, Job) error) ([]mesh.WorkloadID, error) {
	var hit []Job
	err := q.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		hit = nil
		err := Each(tx, func(j Job) error {
			if j.State != Done && which(j) {
				hit = append(hit, j)
			}
			return nil
		})
		for _, j := range hit {
			if err == nil {
				err = q.Cancel(tx, j.ID, func(Job) error { return nil })
			}
			if err == nil {
				err = note(tx, j)
			}
		}
		return err
	})
	var ids []mesh.WorkloadID
	for _, j := range hit {
		ids = append(ids, j.ID)
		q.Stop(j.ID)
	}
	return ids, err
}

// View is a job with what only the queue knows of it: the outputs of one that runs are
// as large as they are now.
type View struct {
	Job
	Ahead int // jobs of the same owner that are queued before it
}

// View shows a job.
func (q *Queue) View(tx *store.Tx, id mesh.WorkloadID) (View, error) {
	j, err := Get(tx, id)
	if err != nil {
		return View{}, err
	}
	return q.show(tx, j)
}

func (q *Queue) show(tx *store.Tx, j Job) (v View, err error) {
	v.Job = j
	switch j.State {
	case Queued:
		v.Ahead, err = ahead(tx, j)
	case Running:
		q.mu.Lock()
		r := q.live[j.ID]
		q.mu.Unlock()
		if r != nil {
			v.Output = r.spools[partOutput].peek()
			v.Log = r.spools[partLog].peek()
		}
	}
	return v, err
}

// List shows all jobs that which says.
func (q *Queue) List(tx *store.Tx, which func(Job) bool) (out []View, err error) {
	err = Each(tx, func(j Job) error {
		if !which(j) {
			return nil
		}
		v, err := q.show(tx, j)
		out = append(out, v)
		return err
	})
	return out, err
}
