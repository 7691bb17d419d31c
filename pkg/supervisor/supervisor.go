package supervisor

import (
	"context"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

// Config is what New needs.
type Config struct {
	Store    *store.Store
	Drivers  map[mesh.Runtime]driver.Driver
	Log      *slog.Logger
	Now      func() time.Time
	OnStatus func(mesh.WorkloadID, mesh.Status) // after each change; must not block
	Ready    time.Duration                      // how long a workload may take to answer; 0 = a minute
	// Hold says what the machine's owner allows a workload now; nil = all run freely.
	// It is asked often, from many goroutines, and must not block. Kick or KickAll
	// tells that its answer changed.
	Hold func(mesh.Workload) Hold
	// OnEnd hears of the end of each run, while its last figures can still be read.
	OnEnd func(mesh.Workload, driver.Task)
}

// Supervisor keeps one goroutine per workload.
type Supervisor struct {
	cfg Config

	mu      sync.Mutex
	keepers map[mesh.WorkloadID]*keeper
	adopted map[mesh.Runtime]bool // the driver said what still runs; keepers of it may act
	ctx     context.Context       // of Run; nil before
	wg      sync.WaitGroup
}

// New prepares a supervisor; nothing runs before Run.
func New(cfg Config) *Supervisor {
	if cfg.Ready == 0 {
		cfg.Ready = time.Minute
	}
	if cfg.OnStatus == nil {
		cfg.OnStatus = func(mesh.WorkloadID, mesh.Status) {}
	}
	if cfg.Hold == nil {
		cfg.Hold = func(mesh.Workload) Hold { return Hold{} }
	}
	if cfg.OnEnd == nil {
		cfg.OnEnd = func(mesh.Workload, driver.Task) {}
	}
	return &Supervisor{cfg: cfg, keepers: map[mesh.WorkloadID]*keeper{}, adopted: map[mesh.Runtime]bool{}}
}

// Run adopts, then supervises until ctx ends. It leaves running what can outlive
// peerd.
func (s *Supervisor) Run(ctx context.Context) error {
	s.mu.Lock()
	s.ctx = ctx
	s.mu.Unlock()
	defer s.wg.Wait()
	for runtime, d := range s.cfg.Drivers {
		s.wg.Go(func() { s.adopt(ctx, runtime, d) })
	}
	<-ctx.Done()
	s.mu.Lock()
	s.ctx = nil // Kick starts nothing any more
	s.mu.Unlock()
	return nil
}

// adopt matches what runs with what is desired. Until the driver answers, the
// workloads of its runtime wait: starting them could double them.
func (s *Supervisor) adopt(ctx context.Context, runtime mesh.Runtime, d driver.Driver) {
	var tasks []driver.Task
	for try := 0; ; try++ {
		var err error
		if tasks, err = d.Adopt(ctx); err == nil {
			break
		}
		if try == 0 {
			s.cfg.Log.Warn("cannot learn what still runs; trying again", "runtime", runtime, "err", err)
		}
		if !sleep(ctx, backoff(try)) {
			return
		}
	}
	byID := map[mesh.WorkloadID]driver.Task{}
	for _, t := range tasks {
		byID[t.ID()] = t
	}
	err := s.cfg.Store.View(func(tx *store.Tx) error {
		return Each(tx, func(r Record) error {
			if r.Workload.Spec.Runtime == runtime {
				s.keep(r.Workload.ID, runtime, byID[r.Workload.ID])
				delete(byID, r.Workload.ID)
			}
			return nil
		})
	})
	if err != nil {
		s.cfg.Log.Error("cannot read the workloads", "err", err)
		return
	}
	for id, t := range byID {
		s.cfg.Log.Warn("ending a workload that nobody owns", "workload", id)
		err := t.Stop(ctx, 0)
		if err == nil {
			err = d.Remove(ctx, id)
		}
		if err != nil {
			s.cfg.Log.Error("cannot end it", "workload", id, "err", err)
		}
	}
	s.mu.Lock()
	s.adopted[runtime] = true
	s.mu.Unlock()
	// What was accepted while the driver was being asked.
	err = s.cfg.Store.View(func(tx *store.Tx) error {
		return Each(tx, func(r Record) error { s.Kick(r.Workload.ID, r.Workload.Spec.Runtime); return nil })
	})
	if err != nil {
		s.cfg.Log.Error("cannot read the workloads", "err", err)
	}
}

// Kick makes the supervisor look at a workload's record anew.
func (s *Supervisor) Kick(id mesh.WorkloadID, runtime mesh.Runtime) {
	s.mu.Lock()
	k := s.keepers[id]
	ready := s.adopted[runtime]
	s.mu.Unlock()
	switch {
	case k != nil:
		k.poke()
	case ready:
		s.keep(id, runtime, nil)
	}
}

// KickAll makes the supervisor look at every workload anew.
func (s *Supervisor) KickAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.keepers {
		k.poke()
	}
}

func (s *Supervisor) keep(id mesh.WorkloadID, runtime mesh.Runtime, t driver.Task) {
	d := s.cfg.Drivers[runtime]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx == nil || d == nil || s.keepers[id] != nil {
		return
	}
	k := &keeper{
		sup: s, id: id, driver: d, kick: make(chan struct{}, 1), changed: make(chan struct{}),
		task: t, status: mesh.Status{State: mesh.Pending, Since: s.cfg.Now()},
	}
	s.keepers[id] = k
	ctx := s.ctx
	s.wg.Go(func() {
		k.run(ctx)
		if ctx.Err() == nil {
			s.mu.Lock()
			delete(s.keepers, id)
			s.mu.Unlock()
			k.publish() // wakes those who watch; they find it gone
			s.cfg.OnStatus(id, mesh.Status{State: mesh.Stopped, Since: s.cfg.Now()})
		}
	})
}

func (s *Supervisor) keeper(id mesh.WorkloadID) *keeper {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keepers[id]
}

// Status is what is true of a workload now, and a channel that is closed when
// that changes. Without a keeper (not adopted yet, or removed) ok is false.
func (s *Supervisor) Status(id mesh.WorkloadID) (st mesh.Status, changed <-chan struct{}, ok bool) {
	k := s.keeper(id)
	if k == nil {
		return mesh.Status{State: mesh.Pending, Reason: "waiting for its runtime"}, nil, false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	st = k.status
	if z, sleeps := k.task.(driver.Sleeper); sleeps && st.State == mesh.Running {
		st.Idle = z.Idle()
	}
	return st, k.changed, true
}

// Task is the current run of a workload that is ready; mesh.Unavailable if none is.
func (s *Supervisor) Task(id mesh.WorkloadID) (driver.Task, error) {
	k := s.keeper(id)
	if k != nil {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.status.State == mesh.Running && k.task != nil {
			return k.task, nil
		}
	}
	return nil, mesh.Errorf(mesh.Unavailable, "the workload is not running")
}

// Running is a workload that runs now, and its run.
type Running struct {
	Workload mesh.Workload
	Task     driver.Task
}

// Running lists what runs now.
func (s *Supervisor) Running() []Running {
	s.mu.Lock()
	keepers := slices.Collect(maps.Values(s.keepers))
	s.mu.Unlock()
	var out []Running
	for _, k := range keepers {
		k.mu.Lock()
		if k.task != nil && k.work.ID != "" {
			out = append(out, Running{k.work, k.task})
		}
		k.mu.Unlock()
	}
	return out
}

// backoff is the pause after the n-th failure in a row: 100 ms doubling up to
// 30 s, ±20 %.
func backoff(n int) time.Duration {
	d := 100 * time.Millisecond << min(n, 9)
	d = min(d, 30*time.Second)
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64()))
}

// sleep waits and reports whether ctx is still live.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
