package node

import (
	"context"
	"encoding/hex"
	"fmt"
	"sync"
	"time"

	"peercompute/pkg/admission"
	"peercompute/pkg/control"
	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
	"peercompute/pkg/supervisor"
	"peercompute/pkg/trust"
	"peercompute/pkg/wire"
)

// This file counts what peers use of their grants: what runs, and the fuel of a day.

const (
	meterEach = 2 * time.Second // how often running guests are asked what they burnt, and that is written down
	statsTime = 2 * time.Second
)

// fuelBook is what peers' guests have burnt, as far as it is not on disk yet.
type fuelBook struct {
	n *Node

	mu      sync.Mutex
	runs    map[driver.Task]*burning
	pending map[mesh.PeerID]uint64     // burnt and not written down yet
	servers map[mesh.WorkloadID]uint64 // the same of servers, whosever they are
	burnt   map[mesh.PeerID]uint64     // written down, for today
	day     string                     // that today is
}

// burning is one run of a guest.
type burning struct {
	owner mesh.PeerID
	job   bool
	fuel  uint64 // counted so far
}

func newFuelBook(n *Node) *fuelBook {
	return &fuelBook{n: n, runs: map[driver.Task]*burning{}, pending: map[mesh.PeerID]uint64{}, servers: map[mesh.WorkloadID]uint64{}, burnt: map[mesh.PeerID]uint64{}}
}

// today is the day by which fuel is counted.
func (b *fuelBook) today() string { return b.n.m.Now().UTC().Format(time.DateOnly) }

// open reads what was burnt today; what a crash left reserved counts as burnt.
func (b *fuelBook) open(ctx context.Context) error {
	var burnt map[mesh.PeerID]uint64
	var jobs int
	now := b.n.m.Now()
	err := b.n.m.Store.Update(ctx, func(tx *store.Tx) (err error) {
		burnt, jobs, err = admission.SettleCrash(tx, now)
		return err
	})
	if err != nil {
		return fmt.Errorf("cannot read what peers burnt today: %w", err)
	}
	if jobs > 0 {
		b.n.log.Warn("jobs were cut off when this node last ended; all the fuel that was reserved for them counts as burnt", "jobs", jobs)
	}
	b.mu.Lock()
	b.burnt, b.day = burnt, now.UTC().Format(time.DateOnly)
	b.mu.Unlock()
	if err := b.forgetServers(ctx); err != nil {
		return err
	}
	return b.goOn(ctx)
}

// lent reports whether a workload's fuel is counted: a guest's, of a peer.
func (b *fuelBook) lent(w mesh.Workload) bool {
	return w.Spec.Runtime == mesh.Wasm && w.Owner != b.n.m.Key.ID
}

func (b *fuelBook) ask(ctx context.Context, w mesh.Workload, t driver.Task) {
	ctx, cancel := context.WithTimeout(ctx, statsTime)
	defer cancel()
	st, err := t.Stats(ctx)
	if err != nil {
		return // it is ending, and its end is counted
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.runs[t]
	if r == nil {
		r = &burning{owner: w.Owner, job: w.Spec.Shape == mesh.Job}
		b.runs[t] = r
	}
	if st.Fuel > r.fuel {
		if b.lent(w) {
			b.pending[r.owner] += st.Fuel - r.fuel
		}
		if isServer(w) {
			b.servers[w.ID] += st.Fuel - r.fuel
		}
		r.fuel = st.Fuel
	}
}

// run meters what runs until ctx ends.
func (b *fuelBook) run(ctx context.Context) error {
	t := time.NewTicker(meterEach)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			b.flush(context.WithoutCancel(ctx))
			return nil
		}
		for _, r := range b.n.sup.Running() {
			if b.counted(r.Workload) {
				b.ask(ctx, r.Workload, r.Task)
			}
		}
		b.flush(ctx)
		b.mu.Lock()
		turned := b.day != b.today()
		if turned {
			b.day = b.today()
			clear(b.burnt)
		}
		b.mu.Unlock()
		if turned {
			b.n.lending.changed()
			if err := b.forgetServers(ctx); err != nil && ctx.Err() == nil {
				b.n.log.Error(err.Error())
			}
		}
	}
}

// flush writes down what was burnt, and has those held that burnt too much.
func (b *fuelBook) flush(ctx context.Context) {
	b.mu.Lock()
	charge, servers := b.pending, b.servers
	b.pending, b.servers = map[mesh.PeerID]uint64{}, map[mesh.WorkloadID]uint64{}
	b.mu.Unlock()
	if len(charge)+len(servers) == 0 {
		return
	}
	now := b.n.m.Now()
	var total map[mesh.PeerID]uint64
	err := b.n.m.Store.Update(ctx, func(tx *store.Tx) error {
		total = map[mesh.PeerID]uint64{}
		for p, units := range charge {
			p = b.n.m.Trust.Resolve(p)
			sum, err := admission.BurnFuel(tx, p, units, now)
			if err != nil {
				return err
			}
			total[p] = sum
		}
		for run, units := range servers {
			if err := burnServer(tx, run, units, now); err != nil {
				return err
			}
		}
		return nil
	})
	b.mu.Lock()
	if err != nil { // it is tried again
		for p, units := range charge {
			b.pending[p] += units
		}
		for run, units := range servers {
			b.servers[run] += units
		}
	}
	b.mu.Unlock()
	if err != nil {
		b.n.log.Error("cannot write down what peers burnt", "err", err)
		return
	}
	b.note(total)
}

// note remembers new totals, and wakes the holds where one passes its limit.
func (b *fuelBook) note(total map[mesh.PeerID]uint64) {
	crossed := false
	b.mu.Lock()
	for p, sum := range total {
		if g, ok := b.n.m.Trust.Entry(p); ok {
			crossed = crossed || b.burnt[p] < g.Quota.FuelDay && sum >= g.Quota.FuelDay
		}
		b.burnt[p] = sum
	}
	b.mu.Unlock()
	if crossed {
		b.n.lending.changed()
	}
}

// spent reports whether a peer has burnt all its fuel of today.
func (b *fuelBook) spent(g trust.Grant) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.day == b.today() && b.burnt[g.Peer] >= g.Quota.FuelDay
}

// waiting is what p burnt that is not written down yet, and what of the
// reservations for its supervised jobs is burnt and counted already.
func (b *fuelBook) waiting(p mesh.PeerID) (pending, counted uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.runs {
		if r.owner == p && r.job {
			counted += r.fuel
		}
	}
	return b.pending[p], counted
}

// usage is what runs for who and for all, and who's fuel of today.
func (n *Node) usage(tx *store.Tx, who mesh.PeerID) (admission.Usage, error) {
	u, err := supervisor.Usage(tx, who, n.counts)
	if err != nil {
		return u, err
	}
	n.mu.Lock()
	for _, j := range n.jobs {
		u.Host.Add(j.spec)
		if j.owner == who {
			u.Peer.Add(j.spec)
		}
	}
	n.mu.Unlock()
	if err := n.addImages(tx, who, &u); err != nil {
		return u, err
	}
	if err := addVolumes(tx, who, &u); err != nil {
		return u, err
	}
	if who == "" || who == n.m.Key.ID {
		return u, nil
	}
	burnt, opens, err := admission.Burnt(tx, who, n.m.Now())
	u.FuelToday, u.FuelOpens = n.fuelToday(who, burnt, u.Peer.JobFuel), opens
	return u, err
}

// fuelToday is what who has burnt, and what its jobs may still burn.
func (n *Node) fuelToday(who mesh.PeerID, burnt, reserved uint64) uint64 {
	pending, counted := n.fuel.waiting(who)
	sum := burnt
	for _, more := range []uint64{pending, reserved - min(counted, reserved)} {
		if sum += more; sum < more {
			return 1<<64 - 1
		}
	}
	return sum
}

// counts reports whether an owner's workloads count against what is lent: those of
// a grant that has ended do not run.
func (n *Node) counts(owner mesh.PeerID) bool {
	_, ended := n.m.Trust.Ended(owner)
	return !ended
}

// usages is what each peer uses, in one look.
func (n *Node) usages() (map[mesh.PeerID]control.Usage, error) {
	held := map[mesh.PeerID]*admission.Held{}
	of := func(p mesh.PeerID) *admission.Held {
		if held[p] == nil {
			held[p] = &admission.Held{}
		}
		return held[p]
	}
	n.mu.Lock()
	for _, j := range n.jobs {
		of(j.owner).Add(j.spec)
	}
	n.mu.Unlock()
	out, now := map[mesh.PeerID]control.Usage{}, n.m.Now()
	err := n.m.Store.View(func(tx *store.Tx) error {
		err := supervisor.Each(tx, func(r supervisor.Record) error {
			r.AddTo(of(r.Workload.Owner))
			return nil
		})
		for _, g := range n.m.Trust.All() {
			if err != nil {
				break
			}
			h := of(g.Peer)
			var burnt uint64
			u := control.Usage{Workloads: h.Workloads, Resources: h.Resources}
			burnt, u.FuelOpens, err = admission.Burnt(tx, g.Peer, now)
			u.FuelToday = n.fuelToday(g.Peer, burnt, h.JobFuel)
			out[g.Peer] = u
		}
		return err
	})
	return out, err
}

// reserve sets aside what a job of a peer may burn, in the transaction that admits it.
func (n *Node) reserve(tx *store.Tx, who mesh.PeerID, request wire.Digest, spec mesh.Spec) error {
	if who == n.m.Key.ID {
		return nil
	}
	return admission.HoldFuel(tx, who, hex.EncodeToString(request[:]), spec.Resources.Fuel, n.m.Now())
}

// settling gives back what a job did not burn: what to commit, and what to call once
// that is on disk. Only the first time counts.
func (n *Node) settling(who mesh.PeerID, request wire.Digest, burnt uint64) (commit func(*store.Tx) error, after func()) {
	if who == n.m.Key.ID {
		return func(*store.Tx) error { return nil }, func() {}
	}
	who = n.m.Trust.Resolve(who) // it may have changed its key meanwhile
	var total uint64
	return func(tx *store.Tx) (err error) {
		total, err = admission.SettleFuel(tx, who, hex.EncodeToString(request[:]), burnt, n.m.Now())
		return err
	}, func() { n.fuel.note(map[mesh.PeerID]uint64{who: total}) }
}

// settle is settling, at once.
func (n *Node) settle(who mesh.PeerID, request wire.Digest, burnt uint64) {
	commit, after := n.settling(who, request, burnt)
	if err := n.m.Store.Update(context.Background(), commit); err != nil {
		// It stays reserved until the next start, and counts as burnt then.
		n.log.Error("cannot write down what a job burnt", "peer", who, "err", err)
		return
	}
	after()
}

// burntBy is what a job is charged. One that was ended together with its worker
// cannot say what it burnt, and is charged all it could.
func burntBy(x mesh.Exit, spec mesh.Spec) uint64 {
	if x.Fuel == 0 && x.Kind != 0 {
		return spec.Resources.Fuel
	}
	return x.Fuel
}
