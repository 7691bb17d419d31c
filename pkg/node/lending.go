package node

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"peercompute/pkg/admission"
	"peercompute/pkg/driver"
	"peercompute/pkg/lend"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

// This file is what the owner of this machine lends, and when. What was said with
// peerctl is kept in the state file and goes before the configuration file; the
// rest follows from the clock and the machine at each moment.

// In store.Lend.
var (
	keyBreak    = []byte("pause")
	keySettings = []byte("settings")
)

// lookEach is how often the clock is looked at where time matters: it may be set, and
// the machine may have slept.
const lookEach = 15 * time.Second

// Machine is how a node looks at the machine it runs on. What is nil is measured
// for real.
type Machine struct {
	Look   func(now time.Time) (lend.Machine, error)
	Memory func() (total, available int64, err error)
	Cores  int
}

type lending struct {
	n    *Node
	file lend.Settings // of the configuration
	wake chan struct{}

	saying sync.Mutex // what the owner says is taken in one at a time, on disk and below

	mu       sync.Mutex
	said     lend.Settings // with peerctl lend
	brk      *lend.Break
	policy   lend.Policy
	detector *lend.Detector
	watch    lend.Watch
}

func newLending(n *Node, file lend.Settings, m Machine) *lending {
	return &lending{n: n, file: file, wake: make(chan struct{}, 1), detector: lend.NewDetector(m.Cores)}
}

// open reads what the owner has said. On doubt nothing is lent: it fails.
func (l *lending) open() error {
	return l.n.m.Store.View(func(tx *store.Tx) error {
		var said lend.Settings
		if _, err := tx.GetJSON(store.Lend, keySettings, &said); err != nil {
			return err
		}
		var b lend.Break
		ok, err := tx.GetJSON(store.Lend, keyBreak, &b)
		if err != nil {
			return err
		}
		policy, err := said.Over(l.file).Policy()
		if err != nil {
			return err
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.said, l.policy = said, policy; ok {
			l.brk = &b
		}
		return nil
	})
}

// now is the policy, whether lending is open under it, and the owner's pause.
func (l *lending) now() (lend.Policy, lend.State, *lend.Break) {
	at := l.n.m.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.policy, l.policy.At(at, l.brk, l.detector.Idle()), l.brk
}

func (l *lending) state() lend.State {
	_, st, _ := l.now()
	return st
}

// changed has everything looked at anew: the policy, a grant or the day is another.
func (l *lending) changed() { signal(l.wake) }

// run notices when the state changes, until ctx ends.
func (l *lending) run(ctx context.Context) error {
	var last lend.State
	woken := true
	for {
		l.sample(ctx)
		policy, st, brk := l.now()
		if st.Open != last.Open || st.Reason != last.Reason || st.Then != last.Then {
			log := l.n.log
			if !st.Opens.IsZero() {
				log = log.With("opens", st.Opens)
			}
			log.Info("lending is " + st.String())
			last, woken = st, true
		}
		l.n.sup.KickAll()
		l.n.endJobs()
		if woken {
			l.n.gateways.poke()
		}
		t := time.NewTimer(l.pause(policy, brk))
		select {
		case <-l.wake:
			woken = true
		case <-t.C:
			woken = false
		case <-ctx.Done():
			t.Stop()
			return nil
		}
		t.Stop()
	}
}

// pause is how long nothing can change by itself.
func (l *lending) pause(p lend.Policy, brk *lend.Break) time.Duration {
	if p.When.AsksIdle() {
		return lend.SampleEach
	}
	now := l.n.m.Now()
	next := p.Turns(now, brk)
	if end := l.n.nextEnd(now); next.IsZero() || !end.IsZero() && end.Before(next) {
		next = end
	}
	if next.IsZero() {
		return time.Hour
	}
	return min(max(next.Sub(now), 10*time.Millisecond), lookEach)
}

// sample looks at the machine, where the schedule asks whether it is idle.
func (l *lending) sample(ctx context.Context) {
	l.mu.Lock()
	asked := l.policy.When.AsksIdle()
	l.mu.Unlock()
	if !asked {
		return
	}
	at := time.Now() // monotonic: what is measured is a rate
	m, err := l.n.cfg.Machine.Look(l.n.m.Now())
	if err != nil {
		l.n.log.Warn("lending stays closed", "err", err)
		return
	}
	ours := l.n.spent(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	if s, ok := l.watch.Look(at, m, ours); ok {
		l.detector.Add(s)
	}
}

// spent is the processor time that each part of our lent work has used so far.
func (n *Node) spent(ctx context.Context) map[string]time.Duration {
	out := map[string]time.Duration{"peerd": lend.ProcessTime(os.Getpid())}
	for _, r := range n.sup.Running() {
		if r.Workload.Owner == n.m.Key.ID || r.Workload.Spec.Runtime != mesh.Container {
			continue
		}
		ask, cancel := context.WithTimeout(ctx, statsTime)
		if st, err := r.Task.Stats(ask); err == nil {
			out[string(r.Workload.ID)] = st.CPU
		}
		cancel()
	}
	for _, r := range n.cfg.Runtimes {
		p, ok := r.Driver.(driver.Processes)
		if !ok {
			continue
		}
		for pid, owner := range p.Processes() {
			if owner != n.m.Key.ID {
				out[fmt.Sprintf("process %d", pid)] = lend.ProcessTime(pid)
			}
		}
	}
	return out
}

// policy is what admission asks of this machine now.
func (n *Node) policy(ctx context.Context) admission.Policy {
	p, _, brk := n.lending.now()
	out := admission.Policy{Workloads: p.Workloads, Resources: hostResources(p)}
	now := n.m.Now()
	if brk.InForce(now) {
		out.Paused = &admission.Closed{Why: "its owner paused it", Opens: brk.Until}
	}
	l := n.lending
	l.mu.Lock()
	st := p.At(now, nil, l.detector.Idle())
	l.mu.Unlock()
	if !st.Open {
		out.Schedule = &admission.Closed{Why: "it " + st.Reason, Opens: st.Opens}
	}
	if p.Reserve > 0 {
		out.Reserve.Keep = p.Reserve
		var err error
		if out.Reserve.Total, out.Reserve.Available, err = n.cfg.Machine.Memory(); err != nil {
			n.log.Error("cannot tell how much memory is left; taking it as none", "err", err)
		}
	}
	for _, r := range n.runtimes(ctx) {
		if r.Ready {
			out.Runtimes = append(out.Runtimes, r.Kind)
		}
	}
	return out
}

// What one workload may have at most, where nothing else bounds it.
const (
	hostPIDs = 4096
	hostFuel = 1 << 62
)

func hostResources(p lend.Policy) mesh.Resources {
	return mesh.Resources{MilliCPU: p.MilliCPU, Memory: p.Memory, Disk: p.Disk, PIDs: hostPIDs, Fuel: hostFuel}
}

// unlent is the policy for the owner's own work: hours, pauses and the reserve are
// for what is lent.
func unlent(p admission.Policy) admission.Policy {
	p.Paused, p.Schedule, p.Reserve = nil, nil, admission.Reserve{}
	return p
}

// real fills in what is measured for real.
func real(m *Machine) {
	if m.Look == nil {
		m.Look = lend.Look
	}
	if m.Memory == nil {
		m.Memory = lend.Memory
	}
	if m.Cores == 0 {
		m.Cores = runtime.NumCPU()
	}
}
