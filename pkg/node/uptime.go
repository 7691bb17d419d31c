package node

import (
	"context"
	"maps"
	"sync"
	"time"

	"peercompute/pkg/mesh"
	"peercompute/pkg/receipt"
	"peercompute/pkg/store"
)

// This file counts for how long peers' containers are up here.

const (
	upLook  = 2 * time.Second  // how often it is looked at what is up
	upWrite = 30 * time.Second // how often that is written down: a crash forgets no more, in the asker's favour
	upMost  = 3 * upLook       // counted for one look: the machine may have slept
)

// uptime is for how long containers were up, as far as it is not on disk yet. What
// was up while peerd was not is never counted.
type uptime struct {
	n    *Node
	wake chan struct{}

	mu sync.Mutex
	up map[mesh.PeerID]time.Duration
}

func newUptime(n *Node) *uptime {
	return &uptime{n: n, wake: make(chan struct{}, 1), up: map[mesh.PeerID]time.Duration{}}
}

// ended has what was counted written down: the asker will want to know.
func (u *uptime) ended(w mesh.Workload) {
	if u.counts(w) {
		signal(u.wake)
	}
}

func (u *uptime) counts(w mesh.Workload) bool {
	return w.Spec.Runtime == mesh.Container && w.Owner != u.n.m.Key.ID
}

// run counts until ctx ends.
func (u *uptime) run(ctx context.Context) error {
	t := time.NewTicker(upLook)
	defer t.Stop()
	looked := time.Now()
	wrote := looked
	for {
		over := false
		select {
		case <-t.C:
		case <-u.wake:
			over = true
		case <-ctx.Done():
			u.write(context.WithoutCancel(ctx))
			return nil
		}
		now := time.Now()
		u.look(min(now.Sub(looked), upMost))
		looked = now
		if over || now.Sub(wrote) >= upWrite {
			u.write(ctx)
			wrote = now
		}
	}
}

// look counts what is up now for as long as the last look is ago. Of two runs of one
// workload, while one takes over, one counts.
func (u *uptime) look(since time.Duration) {
	up := map[mesh.WorkloadID]mesh.PeerID{}
	for _, r := range u.n.sup.Running() {
		if u.counts(r.Workload) && r.State != mesh.Paused {
			up[r.Of] = r.Workload.Owner
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for p := range maps.Values(up) {
		u.up[p] += since
	}
}

// write writes down whole seconds.
func (u *uptime) write(ctx context.Context) {
	u.mu.Lock()
	charge := map[mesh.PeerID]time.Duration{}
	for p, d := range u.up {
		if whole := d.Truncate(time.Second); whole > 0 {
			charge[p] = whole
		}
	}
	u.mu.Unlock()
	if len(charge) == 0 {
		return
	}
	err := u.n.m.Store.Update(ctx, func(tx *store.Tx) error {
		for p, d := range charge {
			if err := receipt.Charge(tx, u.n.m.Trust.Resolve(p), receipt.Sum{ContainerSeconds: uint64(d / time.Second)}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil { // it is tried again
		u.n.log.Error("cannot write down for how long peers' containers were up", "err", err)
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for p, d := range charge {
		p = u.n.m.Trust.Resolve(p)
		if u.up[p] -= d; u.up[p] <= 0 {
			delete(u.up, p)
		}
	}
}

// rekey moves what is not written down yet: a peer has changed its key.
func (u *uptime) rekey(from, to mesh.PeerID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if d, ok := u.up[from]; ok {
		u.up[to] += d
		delete(u.up, from)
	}
}
