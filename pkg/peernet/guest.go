package peernet

import (
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"golang.org/x/time/rate"

	"peercompute/pkg/mesh"
)

// A guest is a peer that is not on the trust list and may knock all the same,
// while an invite is open. It reaches the protocols registered with HandleGuest
// (besides libp2p's own identify and ping) and no other.

const (
	maxGuests     = 8                // connections of guests at once
	guestTime     = 15 * time.Second // that a guest has to become trusted
	knocksASecond = 2
	knocksAtOnce  = 10
)

type guests struct {
	expecting func() bool // nil = never
	knocks    *rate.Limiter

	mu    sync.Mutex
	here  int                 // connections of guests
	hosts map[mesh.PeerID]int // whom this node knocks at now
}

func newGuests(expecting func() bool) *guests {
	return &guests{expecting: expecting, knocks: rate.NewLimiter(knocksASecond, knocksAtOnce), hosts: map[mesh.PeerID]int{}}
}

func (g *guests) open() bool { return g.expecting != nil && g.expecting() }

// mayKnock judges a stranger's inbound connection.
func (g *guests) mayKnock() bool {
	if !g.open() {
		return false
	}
	g.mu.Lock()
	full := g.here >= maxGuests
	g.mu.Unlock()
	return !full && g.knocks.Allow()
}

// host reports whether this node knocks at p.
func (g *guests) host(p mesh.PeerID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.hosts[p] > 0
}

func (g *guests) knock(p mesh.PeerID, by int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.hosts[p] += by; g.hosts[p] == 0 {
		delete(g.hosts, p)
	}
}

// arrived handles a connection to a peer that is not trusted.
func (n *Net) arrived(c network.Conn) {
	g, p := n.guests, c.RemotePeer()
	switch {
	case g.host(p): // Knock closes it
	case c.Stat().Direction == network.DirInbound && g.open():
		g.mu.Lock()
		g.here++
		g.mu.Unlock()
		time.AfterFunc(guestTime, func() {
			g.mu.Lock()
			g.here--
			g.mu.Unlock()
			if !n.cfg.Gate.Allowed(p) {
				_ = c.Close()
			}
		})
	default:
		go c.Close()
	}
}

// HandleGuest is Handle for a protocol that guests reach too.
func (n *Net) HandleGuest(proto string, h func(ctx context.Context, s *Stream)) {
	n.handle(proto, func(p mesh.PeerID) bool { return n.cfg.Gate.Allowed(p) || n.guests.open() }, h)
}

// Knock opens a stream to a peer that this node does not trust yet, at the given
// addresses. done ends the exception, and the connection with it unless the peer
// is trusted by then.
func (n *Net) Knock(ctx context.Context, p mesh.PeerID, addrs []string, proto string) (s *Stream, done func(), err error) {
	n.guests.knock(p, 1)
	known := n.cfg.Gate.Allowed(p)
	n.Learn(p, addrs)
	done = func() {
		n.guests.knock(p, -1)
		if !n.cfg.Gate.Allowed(p) {
			_ = n.host.Network().ClosePeer(p)
			n.host.Peerstore().ClearAddrs(p)
		}
	}
	if !known {
		_ = n.host.Network().ClosePeer(p) // what an earlier attempt left
	}
	ns, err := n.host.NewStream(ctx, p, protocol.ID(proto))
	if err != nil {
		done()
		return nil, nil, dialError(ctx, p, err)
	}
	return &Stream{Stream: ns}, done, nil
}
