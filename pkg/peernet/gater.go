package peernet

import (
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"

	"peercompute/pkg/mesh"
)

// gater refuses strangers at each of libp2p's five interceptors. The identity of
// an inbound remote is known only from the third one on.
type gater struct {
	gate Gate
	self func() mesh.PeerID
}

var _ connmgr.ConnectionGater = (*gater)(nil)

func (g *gater) allowed(p mesh.PeerID) bool { return p != "" && p != g.self() && g.gate.Allowed(p) }

func (g *gater) InterceptPeerDial(p mesh.PeerID) bool { return g.allowed(p) }

func (g *gater) InterceptAddrDial(p mesh.PeerID, _ ma.Multiaddr) bool { return g.allowed(p) }

// InterceptAccept cannot know who it is yet; the resource manager bounds how many
// connections may be in this state.
func (g *gater) InterceptAccept(network.ConnMultiaddrs) bool { return true }

func (g *gater) InterceptSecured(_ network.Direction, p mesh.PeerID, _ network.ConnMultiaddrs) bool {
	return g.allowed(p)
}

func (g *gater) InterceptUpgraded(c network.Conn) (bool, control.DisconnectReason) {
	return g.allowed(c.RemotePeer()), 0
}
