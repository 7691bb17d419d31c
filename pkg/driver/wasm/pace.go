package wasm

import (
	"sync"
	"time"
)

// paceBurst is how much processor time a workload may use ahead of its share, so
// that a short request is not slowed down by a small share.
const paceBurst = 100 * time.Millisecond

// pace holds the instances of one workload to its share of processor time,
// together. The nil pace holds nobody back.
type pace struct {
	milli int64 // thousandths of a processor
	now   func() time.Time

	mu   sync.Mutex
	debt time.Duration // processor time used ahead of the share
	last time.Time
}

// spend records processor time and says how long to wait before more may be used.
func (p *pace) spend(cpu time.Duration) time.Duration {
	if p == nil || p.milli <= 0 {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	earned := now.Sub(p.last) * time.Duration(p.milli) / 1000
	p.last = now
	p.debt = max(0, p.debt-earned) + cpu
	over := p.debt - paceBurst
	if over <= 0 {
		return 0
	}
	// Waits are short, so that limits are looked at often enough.
	return min(over*1000/time.Duration(p.milli), 50*time.Millisecond)
}
