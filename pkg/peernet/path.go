package peernet

import (
	ma "github.com/multiformats/go-multiaddr"

	"peercompute/pkg/mesh"
)

// Path describes the best connection to p: a direct one, if there is any, else one
// through a relay.
func (n *Net) Path(p mesh.PeerID) (addr string, relayed, ok bool) {
	for _, c := range n.host.Network().ConnsToPeer(p) {
		a := c.RemoteMultiaddr()
		_, err := a.ValueForProtocol(ma.P_CIRCUIT)
		if through := err == nil; !ok || relayed && !through {
			addr, relayed, ok = a.String(), through, true
		}
	}
	return addr, relayed, ok
}
