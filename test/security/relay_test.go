package security

import (
	"context"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	ma "github.com/multiformats/go-multiaddr"

	"peercompute/pkg/mesh"
	"peercompute/pkg/peernet"
	"peercompute/test/internal/testmesh"
)

// A libp2p relay that works, and that bob even trusts, is no way past bob's gate: he
// takes no connection through it, is none himself, and dials nobody through one
// (test plan, V1).
func TestNoWayThroughARelay(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	bob := m.Peer("bob")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	plain := func(more ...libp2p.Option) host.Host {
		h, err := libp2p.New(append(more, libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableMetrics())...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { h.Close() })
		return h
	}
	info := func(h host.Host) peer.AddrInfo { return peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()} }
	hop := plain()
	service, err := relay.New(hop)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { service.Close() })
	carol, stranger := plain(), plain()
	if err := carol.Connect(ctx, info(hop)); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Reserve(ctx, carol, info(hop)); err != nil {
		t.Fatal(err)
	}
	if err := stranger.Connect(ctx, info(hop)); err != nil {
		t.Fatal(err)
	}
	through := func(by peer.AddrInfo, to peer.ID) error {
		circuit := ma.StringCast(by.Addrs[0].String() + "/p2p/" + by.ID.String() + "/p2p-circuit")
		return stranger.Connect(ctx, peer.AddrInfo{ID: to, Addrs: []ma.Multiaddr{circuit}})
	}
	if err := through(info(hop), carol.ID()); err != nil {
		t.Fatalf("the relay does not work, so this proves nothing: %v", err)
	}

	bob.Must("peers", "add", hop.ID().String(), "--name", "hop", "--allow", "observe,deploy,route")
	at, err := peer.AddrInfoFromString(bob.Addr())
	if err != nil {
		t.Fatal(err)
	}
	if err := hop.Connect(ctx, *at); err != nil { // trusted, so it gets this far
		t.Fatal(err)
	}
	if err := through(info(hop), at.ID); err == nil {
		t.Error("a stranger reached bob through the relay")
	}
	// A relay that lies: it hands bob a connection that he reserved no place for.
	if s, err := hop.NewStream(network.WithNoDial(ctx, "connected"), at.ID, proto.ProtoIDv2Stop); err == nil {
		s.Reset()
		t.Error("bob speaks the relay's protocol")
	}
	// Bob as the relay.
	if s, err := hop.NewStream(network.WithNoDial(ctx, "connected"), at.ID, proto.ProtoIDv2Hop); err == nil {
		s.Reset()
		t.Error("bob relays")
	}
	if err := stranger.Network().ClosePeer(carol.ID()); err != nil {
		t.Fatal(err)
	}
	stranger.Peerstore().ClearAddrs(carol.ID())
	if err := through(*at, carol.ID()); err == nil {
		t.Error("a stranger reached carol through bob")
	}

	// Outbound: whom bob trusts, but is told of only behind a relay, is not dialled there.
	key := newKey(t)
	n, err := peernet.New(peernet.Config{Key: key.Private, Gate: only{carol.ID()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	n.Learn(carol.ID(), []string{hop.Addrs()[0].String() + "/p2p/" + hop.ID().String() + "/p2p-circuit"})
	if err := n.Connect(ctx, carol.ID()); err == nil {
		t.Error("a trusted peer was dialled through a relay that is not")
	} else if mesh.KindOf(err) != mesh.Unavailable {
		t.Errorf("dialling through a relay: %v, want it unavailable", err)
	}
	if len(hop.Network().ConnsToPeer(key.ID)) != 0 {
		t.Error("the relay was dialled")
	}
}
