package peernet

import (
	"log/slog"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	libp2prate "github.com/libp2p/go-libp2p/x/rate"
	ma "github.com/multiformats/go-multiaddr"

	"peercompute/pkg/mesh"
)

// The bounds of a node. A trusted peer may hold many streams (one per proxied
// connection); before the handshake has shown who it is, a remote gets little.
const (
	maxConns         = 2048
	maxConnsPerPeer  = 16
	maxTransient     = 256
	maxStreams       = 16384
	maxStreamsPeer   = 8192
	maxMemory        = 1 << 30
	maxMemoryPerPeer = 512 << 20
)

func newResourceManager(allowed func(mesh.PeerID) bool, log *slog.Logger) (*entrance, error) {
	cfg := rcmgr.PartialLimitConfig{
		System: rcmgr.ResourceLimits{
			Conns: maxConns, ConnsInbound: maxConns, ConnsOutbound: maxConns, FD: maxConns,
			Streams: maxStreams, StreamsInbound: maxStreams, StreamsOutbound: maxStreams, Memory: maxMemory,
		},
		Transient: rcmgr.ResourceLimits{
			Conns: maxTransient, ConnsInbound: maxTransient, ConnsOutbound: maxTransient, FD: maxTransient,
			Streams: maxStreamsPeer, StreamsInbound: maxStreamsPeer, StreamsOutbound: maxStreamsPeer, Memory: 64 << 20,
		},
		PeerDefault: rcmgr.ResourceLimits{
			Conns: maxConnsPerPeer, ConnsInbound: maxConnsPerPeer, ConnsOutbound: maxConnsPerPeer, FD: maxConnsPerPeer,
			Streams: maxStreamsPeer, StreamsInbound: maxStreamsPeer, StreamsOutbound: maxStreamsPeer, Memory: maxMemoryPerPeer,
		},
		ProtocolDefault: rcmgr.ResourceLimits{
			Streams: maxStreams, StreamsInbound: maxStreams, StreamsOutbound: maxStreams, Memory: maxMemory,
		},
		ProtocolPeerDefault: rcmgr.ResourceLimits{
			Streams: maxStreamsPeer, StreamsInbound: maxStreamsPeer, StreamsOutbound: maxStreamsPeer, Memory: maxMemoryPerPeer,
		},
		Conn: rcmgr.ResourceLimits{
			Conns: 1, ConnsInbound: 1, ConnsOutbound: 1, FD: 1, Streams: maxStreamsPeer,
			StreamsInbound: maxStreamsPeer, StreamsOutbound: maxStreamsPeer, Memory: maxMemoryPerPeer,
		},
		Stream: rcmgr.ResourceLimits{Streams: 1, StreamsInbound: 1, StreamsOutbound: 1, Memory: 32 << 20},
	}
	limits := cfg.Build(rcmgr.DefaultLimits.AutoScale())
	rm, err := rcmgr.NewResourceManager(byTrust{rcmgr.NewFixedLimiter(limits), allowed},
		rcmgr.WithMetricsDisabled(),
		// Its own bound counts trusted peers and connections from here too, and not
		// those on loopback; handshake.go has what takes its place.
		rcmgr.WithConnRateLimiters(&libp2prate.Limiter{}),
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: maxTransient}},
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 56, ConnCount: maxTransient}}))
	if err != nil {
		return nil, err
	}
	return &entrance{rm, newHandshakes(allowed, log, time.Now)}, nil
}

// byTrust gives a peer that is not trusted little. Trust is asked at each use, so
// that a guest that became a peer is limited like one on the same connection.
type byTrust struct {
	rcmgr.Limiter
	allowed func(mesh.PeerID) bool
}

func (l byTrust) GetPeerLimits(p mesh.PeerID) rcmgr.Limit {
	return peerLimit{l.Limiter.GetPeerLimits(p), p, l.allowed}
}

type peerLimit struct {
	rcmgr.Limit
	peer    mesh.PeerID
	allowed func(mesh.PeerID) bool
}

func (l peerLimit) GetStreamLimit(d network.Direction) int {
	if l.allowed(l.peer) {
		return l.Limit.GetStreamLimit(d)
	}
	return guestStreams
}

func (l peerLimit) GetStreamTotalLimit() int {
	if l.allowed(l.peer) {
		return l.Limit.GetStreamTotalLimit()
	}
	return guestStreams
}

func (l peerLimit) GetMemoryLimit() int64 {
	if l.allowed(l.peer) {
		return l.Limit.GetMemoryLimit()
	}
	return guestMemory
}

// tcpFirst dials TCP before QUIC: on one connection TCP with TLS moves several
// times as much (measured on loopback: 1.1 against 0.4 GiB/s), and a peer
// behind NAT dials out either way.
func tcpFirst(addrs []ma.Multiaddr) []network.AddrDelay {
	out := make([]network.AddrDelay, 0, len(addrs))
	for _, a := range addrs {
		d := network.AddrDelay{Addr: a}
		if _, err := a.ValueForProtocol(ma.P_UDP); err == nil {
			d.Delay = 300 * time.Millisecond
		}
		out = append(out, d)
	}
	return out
}
