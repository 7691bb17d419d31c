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
	"sync"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"peercompute/pkg/mesh"
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
