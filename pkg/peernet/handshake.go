package peernet

import (
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"peercompute/pkg/mesh"
)

// A remote shows its key by a handshake, which costs this node more than all that
// it can refuse afterwards. So handshakes are bounded before they begin, over TCP
// and QUIC alike: each address has a few, and all addresses from which no trusted
// peer ever came share as few again. One that a trusted peer came from, or was
// reached at, is not held back by what the others do. Only strangers pay: a
// handshake that shows a trusted key takes nothing.

const (
	originAtOnce    = 24 // handshakes from one address: under way, or failed and not made up for
	originASecond   = 10 // that are made up for
	knownAtOnce     = 64 // the same for an address of a trusted peer, which may share it with others
	knownASecond    = 100
	strangersAtOnce = 40 // from all addresses without a trusted peer; they take a core for 0.1 s
	strangersSecond = 40
	maxOrigins      = 1024 // that are remembered
	originsPerPeer  = 4    // of those, for the sake of one trusted peer
	floodNote       = time.Minute
)

type handshakes struct {
	allowed func(mesh.PeerID) bool
	log     *slog.Logger
	now     func() time.Time

	mu        sync.Mutex
	strangers bucket
	origins   map[netip.Prefix]*source
	refused   int // since the last note in the log
	noted     time.Time
}

// source is one address that connections come from.
type source struct {
	bucket
	by   mesh.PeerID // who was last authenticated there while it was trusted; "" = nobody
	last time.Time
}

func newHandshakes(allowed func(mesh.PeerID) bool, log *slog.Logger, now func() time.Time) *handshakes {
	return &handshakes{
		allowed: allowed, log: log, now: now,
		strangers: bucket{size: strangersAtOnce, rate: strangersSecond, left: strangersAtOnce, at: now()},
		origins:   map[netip.Prefix]*source{},
	}
}

// bucket holds tokens, one for each handshake. One that is under way keeps its
// token from coming back. The zero bucket has none.
type bucket struct {
	size, rate  float64 // tokens, and tokens a second
	left, doing float64
	at          time.Time
}

func (b *bucket) fill(now time.Time) float64 {
	b.left = min(b.size-b.doing, b.left+b.rate*max(0, now.Sub(b.at).Seconds()))
	b.at = now
	return b.left
}

func (b *bucket) take() { b.left--; b.doing++ }

// end returns the token of a handshake that a trusted peer made.
func (b *bucket) end(trusted bool) {
	b.doing--
	if trusted {
		b.left++
	}
}

// known reports whether a peer that is still trusted was authenticated at this address.
func (h *handshakes) known(at netip.Prefix) bool {
	h.mu.Lock()
	var by mesh.PeerID
	if s := h.origins[at]; s != nil {
		by = s.by
	}
	h.mu.Unlock()
	return by != "" && h.allowed(by)
}

// begin takes a token for a handshake that an address asks for; nil = it may not.
// What it returns is to be called when that has ended, with whether its key is of a
// trusted peer.
func (h *handshakes) begin(at netip.Prefix) (end func(trusted bool)) {
	known, now := h.known(at), h.now()
	h.mu.Lock()
	defer h.mu.Unlock()
	if !known && h.strangers.fill(now) < 1 {
		h.refuse(now)
		return nil
	}
	// The address is judged before the common tokens are touched, so that one that
	// comes too often does not use up the others' turns.
	s := h.source(at, now)
	s.size, s.rate = originAtOnce, originASecond
	if known {
		s.size, s.rate = knownAtOnce, knownASecond
	}
	if s.fill(now) < 1 {
		h.refuse(now)
		return nil
	}
	s.take()
	if !known {
		h.strangers.take()
	}
	var once sync.Once
	return func(trusted bool) {
		once.Do(func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			s.end(trusted)
			if !known {
				h.strangers.end(trusted)
			}
		})
	}
}

// refuse counts, and says so now and then; mu is held.
func (h *handshakes) refuse(now time.Time) {
	if h.refused++; now.Sub(h.noted) >= floodNote {
		h.log.Warn("refusing connections before their handshake: too many of strangers", "refused", h.refused)
		h.refused, h.noted = 0, now
	}
}

// pressed reports whether tokens run short, so that a packet's source address has to
// be proved before it takes one: those of others could be used up under their name.
func (h *handshakes) pressed(at netip.Prefix) bool {
	known, now := h.known(at), h.now()
	h.mu.Lock()
	defer h.mu.Unlock()
	if !known && h.strangers.fill(now) < h.strangers.size/2 {
		return true
	}
	s := h.origins[at]
	return s != nil && s.fill(now) < s.size/2
}

// source finds an address, or makes room for it: those that no trusted peer came
// from go first, of these the one that was silent longest. mu is held.
func (h *handshakes) source(at netip.Prefix, now time.Time) *source {
	s := h.origins[at]
	if s == nil {
		if len(h.origins) >= maxOrigins {
			var oldest netip.Prefix
			var least *source
			for a, o := range h.origins {
				if least == nil || (o.by == "") != (least.by == "") && o.by == "" || (o.by == "") == (least.by == "") && o.last.Before(least.last) {
					oldest, least = a, o
				}
			}
			delete(h.origins, oldest)
		}
		s = &source{bucket: bucket{size: originAtOnce, left: originAtOnce, at: now}}
		h.origins[at] = s
	}
	s.last = now
	return s
}

// met notes that p, which is trusted, proved its key at an address, whoever dialled. A
// peer has few addresses here: it must not be able to push out those of others.
func (h *handshakes) met(at netip.Prefix, p mesh.PeerID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.source(at, h.now())
	if s.by == p {
		return
	}
	s.by = p
	var oldest *source
	n := 0
	for _, o := range h.origins {
		if o.by == p {
			if n++; o != s && (oldest == nil || o.last.Before(oldest.last)) {
				oldest = o
			}
		}
	}
	if n > originsPerPeer {
		oldest.by = ""
	}
}

// entrance is libp2p's resource manager, which both transports ask before an inbound
// handshake begins and tell whose key it showed.
type entrance struct {
	network.ResourceManager
	handshakes *handshakes
}

func (e *entrance) OpenConnection(dir network.Direction, usefd bool, endpoint ma.Multiaddr) (network.ConnManagementScope, error) {
	if dir != network.DirInbound {
		return e.ResourceManager.OpenConnection(dir, usefd, endpoint)
	}
	end := e.handshakes.begin(origin(endpoint))
	if end == nil {
		return nil, network.ErrResourceLimitExceeded
	}
	scope, err := e.ResourceManager.OpenConnection(dir, usefd, endpoint)
	if err != nil {
		end(false)
		return nil, err
	}
	return &entering{scope, e.handshakes, end}, nil
}

func (e *entrance) VerifySourceAddress(addr net.Addr) bool {
	if e.ResourceManager.VerifySourceAddress(addr) {
		return true
	}
	a, err := manet.FromNetAddr(addr)
	return err != nil || e.handshakes.pressed(origin(a))
}

// entering is an inbound connection until its remote's key is known, and from then on.
type entering struct {
	network.ConnManagementScope
	handshakes *handshakes
	end        func(trusted bool)
}

func (c *entering) SetPeer(p mesh.PeerID) error {
	c.end(c.handshakes.allowed(p))
	return c.ConnManagementScope.SetPeer(p)
}

func (c *entering) Done() {
	c.end(false)
	c.ConnManagementScope.Done()
}
