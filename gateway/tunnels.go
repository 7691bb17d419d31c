package gateway

import (
	"context"

	"peercompute/pkg/mesh"
	"peercompute/pkg/peernet"
	"peercompute/pkg/wire"
)

// Tunnels opens tunnel streams to the peers that are connected to n. Peers dial
// the gateway, never the other way round, so one that is gone is not waited for.
func Tunnels(n *peernet.Net) Dialer {
	return func(ctx context.Context, publisher mesh.PeerID) (Stream, error) {
		if _, ok := n.Connected(publisher); !ok {
			return nil, mesh.Errorf(mesh.Unavailable, "the publisher is not connected")
		}
		return n.Open(ctx, publisher, wire.TunnelProtocol)
	}
}
