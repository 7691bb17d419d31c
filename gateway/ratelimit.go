package gateway

import (
	"math"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// limiters holds one token bucket per key, and at most about twice size of them.
// Two generations stand in for an exact LRU: a key that is used moves to the
// young one, and when that is full the old one is dropped.
type limiters[K comparable] struct {
	limit rate.Limit
	burst int
	size  int

	mu         sync.Mutex
	young, old map[K]*rate.Limiter
}

// newLimiters returns nil, which allows everything, for a rate of 0.
func newLimiters[K comparable](perSecond float64, size int) *limiters[K] {
	if perSecond <= 0 {
		return nil
	}
	return &limiters[K]{
		limit: rate.Limit(perSecond),
		burst: max(1, int(math.Ceil(2*perSecond))), // a page and what it refers to come at once
		size:  size,
		young: map[K]*rate.Limiter{},
	}
}

// allow takes one token of k's bucket.
func (l *limiters[K]) allow(k K, now time.Time) bool {
	if l == nil {
		return true
	}
	l.mu.Lock()
	b := l.young[k]
	if b == nil {
		if b = l.old[k]; b == nil {
			b = rate.NewLimiter(l.limit, l.burst)
		}
		if len(l.young) >= l.size {
			l.old, l.young = l.young, make(map[K]*rate.Limiter)
		}
		l.young[k] = b
	}
	l.mu.Unlock()
	return b.AllowN(now, 1)
}

// clientKey is what one client counts as: an IPv4 address, or the /64 of an IPv6
// address, since a host can pick freely within its /64.
func clientKey(a netip.Addr) netip.Addr {
	if a.Is4() {
		return a
	}
	p, err := a.WithZone("").Prefix(64)
	if err != nil {
		return a
	}
	return p.Addr()
}

// clientAddr reads the address of a request's RemoteAddr.
func clientAddr(remote string) netip.Addr {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.IPv6Unspecified()
	}
	return ap.Addr().Unmap().WithZone("")
}
