// Package peernet owns the libp2p host: it listens, dials, gates connections
// against the trust list at every interceptor, bounds what a remote can make it
// hold, and hands streams to handlers. It decides nothing itself: who is allowed
// is asked of a Gate.
package peernet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"peercompute/pkg/mesh"
	"peercompute/pkg/mux"
)

// Gate answers who may be connected. It is asked on every connection and again
// on every stream, so its answer takes effect at once.
type Gate interface {
	Allowed(mesh.PeerID) bool
}

// Config is what New needs.
type Config struct {
	Key       crypto.PrivKey // Ed25519
	Listen    []string       // multiaddrs; empty = do not listen
	Gate      Gate
	Log       *slog.Logger
	Expecting func() bool             // whether strangers may come in as guests now (see HandleGuest); nil = never
	OnConnect func(mesh.PeerID, bool) // a peer's first connection came (true) or last went (false); must not block
}

// Net is a node's end of the network.
type Net struct {
	cfg    Config
	listen []ma.Multiaddr
	host   host.Host
	gater  *gater
	guests *guests
	muxer  *muxer

	looking sync.Mutex // one Discover at a time

	mu      sync.Mutex
	closed  bool
	cancels map[mesh.PeerID]map[*Stream]struct{} // inbound streams being handled
	wg      sync.WaitGroup
}

// New builds the host. Nothing listens until Run.
func New(cfg Config) (*Net, error) {
	if cfg.Key == nil || cfg.Gate == nil {
		return nil, errors.New("peernet: Key and Gate are required")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	n := &Net{cfg: cfg, muxer: &muxer{}, cancels: map[mesh.PeerID]map[*Stream]struct{}{}}
	for _, s := range cfg.Listen {
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			return nil, mesh.Errorf(mesh.Invalid, "cannot listen on %q: not a multiaddr", s).
				WithHint("use for example /ip4/0.0.0.0/tcp/4001 or /ip4/0.0.0.0/udp/4001/quic-v1").Because(err)
		}
		n.listen = append(n.listen, a)
	}
	n.guests = newGuests(cfg.Expecting, cfg.Gate.Allowed)
	n.gater = &gater{gate: cfg.Gate, guests: n.guests, self: func() mesh.PeerID { return n.host.ID() }}
	entrance, err := newResourceManager(cfg.Gate.Allowed, cfg.Log)
	if err != nil {
		return nil, fmt.Errorf("cannot build the resource manager: %w", err)
	}
	cm, err := connmgr.NewConnManager(256, 1024, connmgr.WithGracePeriod(time.Minute))
	if err != nil {
		return nil, err
	}
	h, err := libp2p.New(
		libp2p.Identity(cfg.Key),
		libp2p.NoListenAddrs,
		libp2p.NoTransports,
		// A shared port would let two nodes split each other's connections.
		libp2p.Transport(tcp.NewTCPTransport, tcp.DisableReuseport()),
		libp2p.Transport(libp2pquic.NewTransport),
		libp2p.Security(libp2ptls.ID, newBatchTLS),
		libp2p.Muxer(muxerID, n.muxer),
		libp2p.ConnectionGater(n.gater),
		libp2p.ResourceManager(entrance),
		libp2p.ConnectionManager(cm),
		libp2p.DisableRelay(),
		libp2p.DisableMetrics(),
		libp2p.DisableIdentifyAddressDiscovery(),
		libp2p.UserAgent("peercompute"),
		libp2p.SwarmOpts(swarm.WithDialRanker(tcpFirst), swarm.WithDialTimeout(15*time.Second)),
	)
	if err != nil {
		return nil, fmt.Errorf("cannot build the network host: %w", err)
	}
	n.host = h
	h.Network().Notify(&network.NotifyBundle{
		ConnectedF: func(_ network.Network, c network.Conn) {
			// Trust may have been withdrawn while the connection was being set up. It is
			// registered by now: a removal from here on finds and closes it, and of one
			// before this sees the answer.
			if !cfg.Gate.Allowed(c.RemotePeer()) {
				n.arrived(c)
				return
			}
			entrance.handshakes.met(origin(c.RemoteMultiaddr()), c.RemotePeer())
			n.notify(c.RemotePeer(), true)
		},
		DisconnectedF: func(nw network.Network, c network.Conn) {
			n.guests.left(c)
			if nw.Connectedness(c.RemotePeer()) != network.Connected {
				n.notify(c.RemotePeer(), false)
			}
		},
	})
	return n, nil
}

func (n *Net) notify(p mesh.PeerID, up bool) {
	if n.cfg.OnConnect != nil {
		n.cfg.OnConnect(p, up)
	}
}

// Run listens until ctx ends, then closes every stream and connection and waits
// for all handlers.
func (n *Net) Run(ctx context.Context, ready func()) error {
	defer n.Close()
	for _, a := range n.listen { // one at a time: of several it would be content with any
		if err := n.host.Network().Listen(a); err != nil {
			return mesh.Errorf(mesh.Unavailable, "cannot listen on %s", a).
				WithHint("is another program using the port? choose another with --listen").Because(err)
		}
	}
	if ready != nil {
		ready()
	}
	<-ctx.Done()
	return nil
}

// Close ends the host where Run was never called; after Run it does nothing.
func (n *Net) Close() {
	n.mu.Lock()
	n.closed = true
	for _, set := range n.cancels {
		for s := range set {
			s.Reset()
		}
	}
	n.mu.Unlock()
	n.host.Close()
	n.wg.Wait()
}

// ID is this node's peer ID.
func (n *Net) ID() mesh.PeerID { return n.host.ID() }

// Protocols are all that this node has a handler for.
func (n *Net) Protocols() []string { return protocol.ConvertToStrings(n.host.Mux().Protocols()) }

// Addrs are the addresses others can dial, each ending in /p2p/ID. Unspecified
// listen addresses are expanded to the machine's own.
func (n *Net) Addrs() []string {
	addrs, err := n.host.Network().InterfaceListenAddresses()
	if err != nil {
		addrs = n.host.Addrs()
	}
	out := make([]string, 0, len(addrs))
	for _, a := range addrs {
		if manet.IsIP6LinkLocal(a) {
			continue
		}
		out = append(out, a.String()+"/p2p/"+n.host.ID().String())
	}
	return out
}

// Learn records where a peer can be dialled.
func (n *Net) Learn(p mesh.PeerID, addrs []string) {
	for _, s := range addrs {
		if a, err := ma.NewMultiaddr(s); err == nil {
			a, _ = peer.SplitAddr(a)
			if a != nil {
				n.host.Peerstore().AddAddr(p, a, peerstore.PermanentAddrTTL)
			}
		}
	}
}

// Welcome records where a peer that is trusted from now on can be dialled. One that
// is connected already, as a guest or because this node knocked at it, is made
// known like any that connects.
func (n *Net) Welcome(p mesh.PeerID, addrs []string) {
	n.Learn(p, addrs)
	if n.guests.promote(p) && n.host.Network().Connectedness(p) == network.Connected {
		n.notify(p, true)
	}
}

// ParseAddr checks a multiaddr and splits off its /p2p/ID, if it has one.
func ParseAddr(s string) (addr string, id mesh.PeerID, err error) {
	a, err := ma.NewMultiaddr(s)
	if err != nil {
		return "", "", mesh.Errorf(mesh.Invalid, "%q is not a multiaddr", s).
			WithHint("it looks like /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…; the other side prints its own with: peerctl whoami").Because(err)
	}
	rest, id := peer.SplitAddr(a)
	if rest == nil {
		return "", id, nil
	}
	return rest.String(), id, nil
}

// Connect makes sure there is a connection to p.
func (n *Net) Connect(ctx context.Context, p mesh.PeerID) error {
	n.clearBackoff(p) // the caller paces its attempts itself
	if err := n.host.Connect(ctx, peer.AddrInfo{ID: p}); err != nil {
		return dialError(ctx, p, err)
	}
	return nil
}

func dialError(ctx context.Context, p mesh.PeerID, err error) error {
	if ctx.Err() != nil {
		return mesh.Errorf(mesh.Timeout, "peer %s did not answer in time", short(p)).
			WithHint("is peerd running there, and can this machine reach its address?").Because(err)
	}
	if errors.Is(err, swarm.ErrGaterDisallowedConnection) {
		return mesh.Errorf(mesh.Untrusted, "peer %s is not on this machine's trust list", short(p)).
			WithHint("trust it first: peerctl peers add")
	}
	return mesh.Errorf(mesh.Unavailable, "cannot reach peer %s", short(p)).
		WithHint("is peerd running there, does it trust this machine, and is its address right? see: peerctl peers ls").Because(err)
}

func short(p mesh.PeerID) string {
	s := p.String()
	if len(s) > 12 {
		s = s[:6] + "…" + s[len(s)-6:]
	}
	return s
}

// Connected reports whether there is a connection to p, and the address of one.
func (n *Net) Connected(p mesh.PeerID) (addr string, ok bool) {
	conns := n.host.Network().ConnsToPeer(p)
	if len(conns) == 0 {
		return "", false
	}
	return conns[0].RemoteMultiaddr().String(), true
}

// Open dials p if need be and opens a stream of the given protocol.
func (n *Net) Open(ctx context.Context, p mesh.PeerID, proto string) (*Stream, error) {
	if !n.cfg.Gate.Allowed(p) {
		return nil, mesh.Errorf(mesh.Untrusted, "peer %s is not on this machine's trust list", short(p))
	}
	_, had := n.Connected(p)
	s, err := n.host.NewStream(ctx, p, protocol.ID(proto))
	// A connection may be dead, which over QUIC only its use shows; there may be
	// several. Nothing was said on them, so trying the next or dialling is safe.
	for try := 1; err != nil && had && try <= maxDead && ctx.Err() == nil; try++ {
		pause := time.NewTimer(time.Duration(try) * deadPause) // until the host has noticed too
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
		}
		n.clearBackoff(p)
		s, err = n.host.NewStream(ctx, p, protocol.ID(proto))
	}
	if err != nil {
		return nil, dialError(ctx, p, err)
	}
	// A peer that was removed meanwhile may be back as a guest, on a connection that
	// the removal did not see.
	if !n.cfg.Gate.Allowed(p) {
		_ = s.Reset()
		return nil, mesh.Errorf(mesh.Untrusted, "peer %s is not on this machine's trust list", short(p))
	}
	return &Stream{Stream: s}, nil
}

const (
	maxDead   = 4 // connections found dead before a stream is given up
	deadPause = 20 * time.Millisecond
)

// clearBackoff lets p be dialled at once although it did not answer just now.
func (n *Net) clearBackoff(p mesh.PeerID) {
	if sw, ok := n.host.Network().(*swarm.Swarm); ok {
		sw.Backoff().Clear(p)
	}
}

// Handle registers the handler of a protocol. The handler owns the stream and
// runs in its own goroutine; ctx ends when the stream is reset from here (the
// peer was removed, or the node stops). The stream is closed when it returns.
func (n *Net) Handle(proto string, h func(ctx context.Context, s *Stream)) {
	n.handle(proto, n.cfg.Gate.Allowed, h)
}

func (n *Net) handle(proto string, allowed func(mesh.PeerID) bool, h func(ctx context.Context, s *Stream)) {
	n.host.SetStreamHandler(protocol.ID(proto), func(ns network.Stream) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		s := &Stream{Stream: ns, muxed: n.muxer.find(ns), cancel: cancel}
		if !n.track(s) {
			s.Reset()
			return
		}
		defer n.untrack(s)
		// A bug that one peer can reach must not end the node for all others.
		defer func() {
			if r := recover(); r != nil {
				n.cfg.Log.Error("panic in a stream handler", "protocol", proto, "peer", s.Peer(), "panic", r, "stack", string(debug.Stack()))
				s.Reset()
			}
		}()
		// After tracking, so that a removal in between still finds the stream.
		if !allowed(s.Peer()) {
			s.Reset()
			return
		}
		h(ctx, s)
		s.Close()
	})
}

func (n *Net) track(s *Stream) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return false
	}
	set := n.cancels[s.Peer()]
	if set == nil {
		set = map[*Stream]struct{}{}
		n.cancels[s.Peer()] = set
	}
	set[s] = struct{}{}
	n.wg.Add(1)
	return true
}

func (n *Net) untrack(s *Stream) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if set := n.cancels[s.Peer()]; set != nil {
		delete(set, s)
		if len(set) == 0 {
			delete(n.cancels, s.Peer())
		}
	}
	n.wg.Done()
}

// Disconnect resets every stream of p, cancels their handlers and closes its
// connections. The gate must refuse p already.
func (n *Net) Disconnect(p mesh.PeerID) error {
	n.reset(p)
	err := n.host.Network().ClosePeer(p)
	n.host.Peerstore().ClearAddrs(p)
	return err
}

// reset ends what handlers do for p.
func (n *Net) reset(p mesh.PeerID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for s := range n.cancels[p] {
		s.Reset()
	}
}

// ResetOthers resets every inbound stream of the peer at the other end of s but s
// itself, and cancels their handlers.
func (n *Net) ResetOthers(s *Stream) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for other := range n.cancels[s.Peer()] {
		if other != s {
			other.Reset()
		}
	}
}

// Mismatch finds in a dialling error that another key answered than was expected.
func Mismatch(err error) (answers mesh.PeerID, ok bool) {
	var wrong sec.ErrPeerIDMismatch
	if !errors.As(err, &wrong) {
		return "", false
	}
	return wrong.Actual, true
}

// Stream is one bidirectional stream to a peer. It is a net.Conn.
type Stream struct {
	network.Stream
	muxed  *mux.Stream // under Stream; nil where it is not known
	cancel context.CancelFunc
}

var _ net.Conn = (*Stream)(nil)

// ReadOr is Read, except that short pieces that come while it waits may be handed
// to direct, on the goroutine that receives for all streams of the connection. So
// direct must not wait: it returns how many bytes it took, and the others are
// read. An error of direct ends the ReadOr, and what came after that is lost.
func (s *Stream) ReadOr(b []byte, direct func([]byte) (int, error)) (int, error) {
	if s.muxed == nil {
		return s.Read(b)
	}
	n, err := s.muxed.ReadOr(b, direct)
	return n, muxError(err)
}

// Peer is who is at the other end, as the connection's handshake proved.
func (s *Stream) Peer() mesh.PeerID { return s.Conn().RemotePeer() }

// Reset ends the stream in both directions at once, without waiting.
func (s *Stream) Reset() {
	if s.cancel != nil {
		s.cancel()
	}
	_ = s.Stream.Reset()
}

// LocalAddr and RemoteAddr make a Stream a net.Conn.
func (s *Stream) LocalAddr() net.Addr  { return addr(s.Conn().LocalPeer().String()) }
func (s *Stream) RemoteAddr() net.Addr { return addr(s.Conn().RemotePeer().String()) }

type addr string

func (addr) Network() string  { return "libp2p" }
func (a addr) String() string { return string(a) }
