package peernet

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"golang.org/x/time/rate"

	"peercompute/pkg/mesh"
)

// A guest is a peer that is not on the trust list and may come all the same,
// while an invite is open or knocking is allowed. It reaches the protocols
// registered with HandleGuest (besides libp2p's own identify and ping) and no
// other, and it is bounded: how many there are, from one address and from all,
// how often they come, how long they stay and how much each may hold.

const (
	maxGuests     = 8                // at once, who were not asked to wait
	maxWaiting    = 16               // at once, who were (see Keep)
	guestsPerAddr = 3                // of both kinds
	guestTime     = 15 * time.Second // that a guest has to become trusted
	guestStreams  = 16
	guestMemory   = 16 << 20

	knocksASecond = 2 // from everywhere
	knocksAtOnce  = 10
	addrASecond   = 1 // from one address
	addrAtOnce    = 6
	maxAddrs      = 1024 // addresses whose rate is remembered
)

type guests struct {
	expecting func() bool // nil = never
	allowed   func(mesh.PeerID) bool
	knocks    *rate.Limiter

	mu       sync.Mutex
	here     map[network.Conn]*guest
	hosts    map[mesh.PeerID]int // whom this node knocks at now
	addrs    map[netip.Prefix]*caller
	addrRate rate.Limit
	burst    int // from one address
	perAddr  int // guests from one address
	stay     time.Duration
}

type guest struct {
	from    netip.Prefix
	waiting bool
	end     *time.Timer
}

// caller is how often one address came.
type caller struct {
	*rate.Limiter
	last time.Time
}

func newGuests(expecting func() bool, allowed func(mesh.PeerID) bool) *guests {
	return &guests{
		expecting: expecting, allowed: allowed, knocks: rate.NewLimiter(knocksASecond, knocksAtOnce),
		here: map[network.Conn]*guest{}, hosts: map[mesh.PeerID]int{}, addrs: map[netip.Prefix]*caller{},
		addrRate: addrASecond, burst: addrAtOnce, perAddr: guestsPerAddr, stay: guestTime,
	}
}

func (g *guests) open() bool { return g.expecting != nil && g.expecting() }

// origin is what counts as one address: an IPv4 address, or the /64 that one
// subscriber of IPv6 has. The zero Prefix stands for what has no IP address.
func origin(a ma.Multiaddr) netip.Prefix {
	if a == nil {
		return netip.Prefix{}
	}
	ip, err := manet.ToIP(a)
	if err != nil {
		return netip.Prefix{}
	}
	addr, ok := netip.AddrFromSlice(ip)
	if !ok {
		return netip.Prefix{}
	}
	addr = addr.Unmap()
	bits := 64
	if addr.Is4() {
		bits = 32
	}
	p, _ := addr.Prefix(bits)
	return p
}

// mayKnock judges a stranger's inbound connection. The address is judged first,
// so that one that comes too often does not use up the others' turns.
func (g *guests) mayKnock(from ma.Multiaddr) bool {
	if !g.open() {
		return false
	}
	at := origin(from)
	g.mu.Lock()
	ok := g.room(at) && g.caller(at, time.Now()).Allow()
	g.mu.Unlock()
	return ok && g.knocks.Allow()
}

// room reports whether one more guest fits; mu is held.
func (g *guests) room(at netip.Prefix) bool {
	passing, same := 0, 0
	for c, have := range g.here {
		switch {
		case g.allowed(c.RemotePeer()):
			continue // a guest no more
		case have.from == at:
			same++
		}
		if !have.waiting {
			passing++
		}
	}
	return passing < maxGuests && same < g.perAddr
}

// caller finds the limiter of an address; the one that was silent longest gives
// way where there are too many. mu is held.
func (g *guests) caller(at netip.Prefix, now time.Time) *caller {
	c := g.addrs[at]
	if c == nil {
		if len(g.addrs) >= maxAddrs {
			oldest := at
			for a, have := range g.addrs {
				if o := g.addrs[oldest]; o == nil || have.last.Before(o.last) {
					oldest = a
				}
			}
			delete(g.addrs, oldest)
		}
		c = &caller{Limiter: rate.NewLimiter(g.addrRate, g.burst)}
		g.addrs[at] = c
	}
	c.last = now
	return c
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

// enter takes an inbound connection in as a guest's, if there is room.
func (g *guests) enter(c network.Conn) bool {
	at := origin(c.RemoteMultiaddr())
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.room(at) {
		return false
	}
	g.here[c] = &guest{from: at, end: time.AfterFunc(g.stay, func() {
		if !g.allowed(c.RemotePeer()) {
			_ = c.Close()
		}
	})}
	return true
}

// left forgets a connection that is closed.
func (g *guests) left(c network.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if have := g.here[c]; have != nil {
		have.end.Stop()
		delete(g.here, c)
	}
}

// promote drops the records of guests who are peers now, and reports whether p was
// a guest here or host of this node.
func (g *guests) promote(p mesh.PeerID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	was := g.hosts[p] > 0
	for c, have := range g.here {
		if c.RemotePeer() == p {
			was = true
			have.end.Stop()
			delete(g.here, c)
		}
	}
	return was
}

// arrived handles a connection to a peer that is not trusted (any more). It is
// closed before it returns, unless the peer may stay as a guest: at this point
// the connection is registered and carries no stream yet.
func (n *Net) arrived(c network.Conn) {
	g := n.guests
	switch {
	case g.host(c.RemotePeer()): // Knock closes it
	case c.Stat().Direction == network.DirInbound && g.open() && g.enter(c):
	default:
		_ = c.Close()
	}
}

// HandleGuest is Handle for a protocol that guests reach too, while open says so.
func (n *Net) HandleGuest(proto string, open func() bool, h func(ctx context.Context, s *Stream)) {
	n.handle(proto, func(p mesh.PeerID) bool { return n.cfg.Gate.Allowed(p) || n.guests.open() && open() }, h)
}

// Keep lets the guest at the other end of s stay for d from now on, because a
// person is to decide about it. It fails if too many are waiting already.
func (n *Net) Keep(s *Stream, d time.Duration) error {
	g := n.guests
	g.mu.Lock()
	defer g.mu.Unlock()
	have := g.here[s.Conn()]
	if have == nil || n.cfg.Gate.Allowed(s.Peer()) {
		return nil // trusted: nothing limits its stay
	}
	if !have.waiting {
		waiting := 0
		for _, other := range g.here {
			if other.waiting {
				waiting++
			}
		}
		if waiting >= maxWaiting {
			return mesh.Errorf(mesh.Overloaded, "too many are waiting already").WithRule("knock.waiting")
		}
	}
	have.waiting = true
	have.end.Reset(d)
	return nil
}

// DisconnectGuests closes the connections of all who are not trusted.
func (n *Net) DisconnectGuests() {
	g := n.guests
	g.mu.Lock()
	var all []network.Conn
	for c := range g.here {
		all = append(all, c)
	}
	g.mu.Unlock()
	for _, c := range all {
		if !n.cfg.Gate.Allowed(c.RemotePeer()) {
			n.reset(c.RemotePeer())
			_ = c.Close()
		}
	}
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
	n.clearBackoff(p)
	ns, err := n.host.NewStream(ctx, p, protocol.ID(proto))
	if err != nil {
		done()
		return nil, nil, dialError(ctx, p, err)
	}
	return &Stream{Stream: ns}, done, nil
}
