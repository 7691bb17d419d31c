package node

import (
	"sync"
	"time"

	"peercompute/pkg/admission"
	"peercompute/pkg/store"
	"peercompute/pkg/wire"
)

// freeFor is how long a count of what is free is told on: heartbeats to many peers
// share one look at the workloads.
const freeFor = 2 * time.Second

type freeCount struct {
	mu   sync.Mutex
	at   time.Time
	have wire.Capacity
}

// free is what this machine could still lend to all peers together.
func (n *Node) free() *wire.Capacity {
	n.freeCount.mu.Lock()
	defer n.freeCount.mu.Unlock()
	if now := time.Now(); n.freeCount.at.IsZero() || now.Sub(n.freeCount.at) > freeFor {
		held, err := n.held()
		if err != nil {
			n.log.Error("cannot count what is free", "err", err)
			return nil
		}
		p, st, _ := n.lending.now()
		n.freeCount.at = now
		n.freeCount.have = wire.Capacity{
			Workloads: max(0, p.Workloads-held.Workloads),
			MilliCPU:  max(0, p.MilliCPU-held.Resources.MilliCPU),
			Memory:    max(0, p.Memory-held.Resources.Memory),
			Disk:      max(0, p.Disk-held.Resources.Disk),
			Closed:    !st.Open,
		}
	}
	out := n.freeCount.have
	return &out
}

// held is what all workloads and jobs here hold together.
func (n *Node) held() (admission.Held, error) {
	var u admission.Usage
	err := n.m.Store.View(func(tx *store.Tx) (err error) {
		u, err = n.usage(tx, "")
		return err
	})
	return u.Host, err
}
