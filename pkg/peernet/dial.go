package peernet

import (
	"context"
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"

	"peercompute/pkg/mesh"
)

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
	if !had {
		n.clearBackoff(p) // somebody asks now; that it was not there a moment ago is no answer
	}
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

// Mismatch finds in a dialling error that another key answered than was expected.
func Mismatch(err error) (answers mesh.PeerID, ok bool) {
	var wrong sec.ErrPeerIDMismatch
	if !errors.As(err, &wrong) {
		return "", false
	}
	return wrong.Actual, true
}
