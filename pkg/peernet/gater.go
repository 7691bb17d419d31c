package peernet

import (
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"

	"peercompute/pkg/mesh"
)

// gater refuses strangers at each of libp2p's five interceptors. The identity of
// an inbound remote is known only from the third one on. The one exception are
// guests (see guest.go).
type gater struct {
	gate   Gate
	guests *guests
	self   func() mesh.PeerID
}

var _ connmgr.ConnectionGater = (*gater)(nil)

func (g *gater) allowed(p mesh.PeerID) bool { return p != "" && p != g.self() && g.gate.Allowed(p) }

// mayDial also allows whom this node knocks at.
func (g *gater) mayDial(p mesh.PeerID) bool {
	return g.allowed(p) || p != "" && p != g.self() && g.guests.host(p)
}

func (g *gater) InterceptPeerDial(p mesh.PeerID) bool { return g.mayDial(p) }

func (g *gater) InterceptAddrDial(p mesh.PeerID, _ ma.Multiaddr) bool { return g.mayDial(p) }

// InterceptAccept cannot know who it is yet; the resource manager bounds how many
// connections may be in this state.
func (g *gater) InterceptAccept(network.ConnMultiaddrs) bool { return true }

func (g *gater) InterceptSecured(dir network.Direction, p mesh.PeerID, at network.ConnMultiaddrs) bool {
	if dir == network.DirOutbound {
		return g.mayDial(p)
	}
	if g.allowed(p) {
		return true
	}
	return p != "" && p != g.self() && at != nil && g.guests.mayKnock(at.RemoteMultiaddr())
}

func (g *gater) InterceptUpgraded(c network.Conn) (bool, control.DisconnectReason) {
	p := c.RemotePeer()
	if g.mayDial(p) {
		return true, 0
	}
	return p != "" && p != g.self() && c.Stat().Direction == network.DirInbound && g.guests.open(), 0
}
