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
	Drain    time.Duration                      // how long a run that an update replaced is left to its connections; 0 = half a minute
	// OnSwitch hears that new connections to a workload reach another run from now on;
	// must not block.
	OnSwitch func(mesh.WorkloadID)
	// Hold says what the machine's owner allows a workload now; nil = all run freely.
	// It is asked often, from many goroutines, and must not block. Kick or KickAll
	// tells that its answer changed.
	Hold func(mesh.Workload) Hold
	// OnEnd hears of the end of each run, while its last figures can still be read.
	OnEnd func(mesh.Workload, driver.Task)
}

// Supervisor keeps one goroutine per run of a workload.
type Supervisor struct {
	cfg Config

	mu      sync.Mutex
	groups  map[mesh.WorkloadID]*group
	adopted map[mesh.Runtime]bool // the driver said what still runs; keepers of it may act
	ctx     context.Context       // of Run; nil before
	wg      sync.WaitGroup
}

// group is the runs of one workload.
type group struct {
	current  mesh.WorkloadID // the run that is reached
	revision int             // of current; it only grows, whoever reads an older record
	keepers  map[mesh.WorkloadID]*keeper
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
	if cfg.Drain == 0 {
		cfg.Drain = 30 * time.Second
	}
	if cfg.OnSwitch == nil {
		cfg.OnSwitch = func(mesh.WorkloadID) {}
	}
	if cfg.OnEnd == nil {
		cfg.OnEnd = func(mesh.Workload, driver.Task) {}
	}
	return &Supervisor{cfg: cfg, groups: map[mesh.WorkloadID]*group{}, adopted: map[mesh.Runtime]bool{}}
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
			for run, of := range r.runs() {
				if of == runtime {
					s.keep(r, run, runtime, byID[run])
					delete(byID, run)
				}
			}
			return nil
		})
	})
	if err != nil {
		s.cfg.Log.Error("cannot read the workloads", "err", err)
		return
	}
	s.mu.Lock()
	s.adopted[runtime] = true
	s.mu.Unlock()
	// What was accepted while the driver was being asked.
	err = s.cfg.Store.View(func(tx *store.Tx) error {
		return Each(tx, func(r Record) error { s.look(r); return nil })
	})
	if err != nil {
		s.cfg.Log.Error("cannot read the workloads", "err", err)
	}
	endOrphans(ctx, s.cfg.Log, d, byID)
}

// endOrphans ends what nobody owns, however often that takes.
func endOrphans(ctx context.Context, log *slog.Logger, d driver.Driver, orphans map[mesh.WorkloadID]driver.Task) {
	for try := 0; ; try++ {
		for id, t := range orphans {
			log.Warn("ending a workload that nobody owns", "workload", id)
			err := t.Stop(ctx, 0)
			if err == nil {
				err = d.Remove(ctx, id)
			}
			if err == nil {
				delete(orphans, id)
			} else if ctx.Err() == nil {
				log.Error("cannot end it; trying again", "workload", id, "err", err)
			}
		}
		if len(orphans) == 0 || !sleep(ctx, backoff(try)) {
			return
		}
	}
}

// Kick makes the supervisor look at a workload's record anew.
func (s *Supervisor) Kick(id mesh.WorkloadID) {
	err := s.cfg.Store.View(func(tx *store.Tx) error {
		r, err := Get(tx, id)
		if err == nil {
			s.look(r)
		}
		return err
	})
	if err != nil {
		s.poke(id) // they find out
	}
}

// look begins to keep the runs of a record that nobody keeps yet, and pokes all.
func (s *Supervisor) look(r Record) {
	for run, runtime := range r.runs() {
		s.mu.Lock()
		g := s.groups[r.Workload.ID]
		begin := s.adopted[runtime] && (g == nil || g.keepers[run] == nil)
		s.mu.Unlock()
		if begin {
			s.keep(r, run, runtime, nil)
		}
	}
	s.poke(r.Workload.ID)
}

// poke makes every keeper of a workload look at its record.
func (s *Supervisor) poke(id mesh.WorkloadID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g := s.groups[id]; g != nil {
		for _, k := range g.keepers {
			k.poke()
		}
	}
}

// KickAll makes the supervisor look at every workload anew.
func (s *Supervisor) KickAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.groups {
		for _, k := range g.keepers {
			k.poke()
		}
	}
}

func (s *Supervisor) keep(r Record, run mesh.WorkloadID, runtime mesh.Runtime, t driver.Task) {
	d := s.cfg.Drivers[runtime]
	id := r.Workload.ID
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.groups[id]
	if s.ctx == nil || d == nil || g != nil && g.keepers[run] != nil {
		return
	}
	if g == nil {
		g = &group{keepers: map[mesh.WorkloadID]*keeper{}}
		s.groups[id] = g
	}
	if run == r.Current() {
		g.reach(run, r.Serving())
	}
	k := &keeper{
		sup: s, id: id, run: run, driver: d, kick: make(chan struct{}, 1), changed: make(chan struct{}),
		task: t, work: r.work(run), status: mesh.Status{State: mesh.Pending, Since: s.cfg.Now()},
	}
	g.keepers[run] = k
	ctx := s.ctx
	s.wg.Go(func() {
		k.supervise(ctx)
		if ctx.Err() == nil {
			s.release(g, k)
		}
	})
}

// release lets go of a keeper that is done.
func (s *Supervisor) release(g *group, k *keeper) {
	s.mu.Lock()
	current := g.current == k.run
	delete(g.keepers, k.run)
	if len(g.keepers) == 0 && s.groups[k.id] == g {
		delete(s.groups, k.id)
	}
	s.mu.Unlock()
	k.publish() // wakes those who watch; they find it gone
	if current {
		s.cfg.OnStatus(k.id, mesh.Status{State: mesh.Stopped, Since: s.cfg.Now()})
	}
	s.poke(k.id)
	s.stir(k.id)
}

// keeper is that of the run that is reached; nil if there is none.
func (s *Supervisor) keeper(id mesh.WorkloadID) *keeper {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keeperLocked(id)
}

func (s *Supervisor) keeperLocked(id mesh.WorkloadID) *keeper {
	if g := s.groups[id]; g != nil {
		return g.keepers[g.current]
	}
	return nil
}

// stir wakes those who watch a workload.
func (s *Supervisor) stir(id mesh.WorkloadID) {
	if k := s.keeper(id); k != nil {
		k.publish()
	}
}

// reach makes the run of a revision the one that is reached, unless a later one is.
func (g *group) reach(run mesh.WorkloadID, revision int) bool {
	if revision <= g.revision {
		return false
	}
	g.current, g.revision = run, revision
	return true
}

// switchTo makes a run the one that is reached, once the record says so.
func (s *Supervisor) switchTo(k *keeper, revision int) {
	s.mu.Lock()
	g := s.groups[k.id]
	old := g.keepers[g.current]
	switched := g.reach(k.run, revision)
	s.mu.Unlock()
	if !switched {
		return
	}
	if old != nil {
		old.publish() // who watched the old one finds the new one
	}
	s.cfg.OnSwitch(k.id)
	s.poke(k.id)
}

// quiet reports whether it is known that nothing of a run executes.
func (s *Supervisor) quiet(id, run mesh.WorkloadID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.groups[id]
	if g == nil || g.keepers[run] == nil {
		return false
	}
	k := g.keepers[run]
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.task == nil && k.settled
}

// Status is what is true of a workload now, and a channel that is closed when
// that changes. Without a keeper (not adopted yet, or removed) ok is false.
func (s *Supervisor) Status(id mesh.WorkloadID) (st mesh.Status, changed <-chan struct{}, ok bool) {
	k := s.keeper(id)
	if k == nil {
		return mesh.Status{State: mesh.Pending, Reason: "waiting for its runtime"}, nil, false
	}
	k.mu.Lock()
	changed = k.changed
	k.mu.Unlock()
	return k.now(), changed, true
}

// StatusOf is what is true of one run of a workload.
func (s *Supervisor) StatusOf(id, run mesh.WorkloadID) (st mesh.Status, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.groups[id]
	if g == nil || g.keepers[run] == nil {
		return st, false
	}
	return g.keepers[run].now(), true
}

// now is the status of a run at this moment.
func (k *keeper) now() mesh.Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	st := k.status
	if z, sleeps := k.task.(driver.Sleeper); sleeps && st.State == mesh.Running {
		st.Idle = z.Idle()
	}
	if h, ok := k.task.(driver.Holder); ok && st.State == mesh.Running {
		st.Held = h.Held()
	}
	return st
}

// Current is the run that connections to a workload reach; empty if there is none.
func (s *Supervisor) Current(id mesh.WorkloadID) mesh.WorkloadID {
	if k := s.keeper(id); k != nil {
		return k.run
	}
	return ""
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

// Borrow is Task for a connection. Until it is given back, an update that replaces
// the run leaves it alone, for a while.
func (s *Supervisor) Borrow(id mesh.WorkloadID) (t driver.Task, giveBack func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock() // so that no switch comes in between
	if k := s.keeperLocked(id); k != nil {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.status.State == mesh.Running && k.task != nil {
			k.lent++
			return k.task, sync.OnceFunc(k.returned), nil
		}
	}
	return nil, nil, mesh.Errorf(mesh.Unavailable, "the workload is not running")
}

// Running is a run of a workload that executes now, or is frozen.
type Running struct {
	Of       mesh.WorkloadID // the workload's own ID
	Workload mesh.Workload   // under the run's
	Task     driver.Task
	State    mesh.State
}

// Running lists what runs now.
func (s *Supervisor) Running() []Running {
	s.mu.Lock()
	var keepers []*keeper
	for _, g := range s.groups {
		keepers = slices.AppendSeq(keepers, maps.Values(g.keepers))
	}
	s.mu.Unlock()
	var out []Running
	for _, k := range keepers {
		k.mu.Lock()
		if k.task != nil && k.work.ID != "" {
			out = append(out, Running{k.id, k.work, k.task, k.status.State})
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
