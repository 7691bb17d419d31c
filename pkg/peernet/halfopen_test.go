package peernet

import (
	"fmt"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"

	"peercompute/pkg/mesh"
)

// One address cannot hold more than its share of unfinished handshakes, whatever else
// goes on; those that finish or end make room.
func TestOneAddressCannotHoldAllHandshakes(t *testing.T) {
	rm, err := newResourceManager(func(mesh.PeerID) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	defer rm.Close()
	open := func(addr string) (network.ConnManagementScope, error) {
		return rm.OpenConnection(network.DirInbound, true, ma.StringCast(addr))
	}
	var held []network.ConnManagementScope
	for i := range maxHalfOpen {
		s, err := open("/ip4/192.0.2.1/tcp/4001")
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		held = append(held, s)
	}
	for _, addr := range []string{"/ip4/192.0.2.1/tcp/99", "/ip4/192.0.2.1/udp/4001/quic-v1", "/ip6/::ffff:192.0.2.1/tcp/1"} {
		if _, err := open(addr); err == nil {
			t.Errorf("one more from %s", addr)
		}
	}
	for _, addr := range []string{"/ip4/192.0.2.2/tcp/4001", "/ip6/2001:db8::1/tcp/4001"} {
		s, err := open(addr)
		if err != nil {
			t.Errorf("another address, %s: %v", addr, err)
			continue
		}
		s.Done()
	}
	if s, err := rm.OpenConnection(network.DirOutbound, true, ma.StringCast("/ip4/192.0.2.1/tcp/4001")); err != nil {
		t.Errorf("dialling that address: %v", err)
	} else {
		s.Done()
	}
	if err := held[0].SetPeer("somebody"); err != nil { // this one turns out to be somebody
		t.Fatal(err)
	}
	held[1].Done()
	held[1].Done() // twice is once
	for i := range 2 {
		s, err := open("/ip4/192.0.2.1/tcp/4001")
		if err != nil {
			t.Fatalf("room was made, and connection %d is refused: %v", i, err)
		}
		held = append(held, s)
	}
	if _, err := open("/ip4/192.0.2.1/tcp/4001"); err == nil {
		t.Error("more room than was made")
	}
	for _, s := range held {
		s.Done()
	}
	if h := rm.(*halfOpen); len(h.held) != 0 {
		t.Errorf("after all have ended %v are held", h.held)
	}
	// An IPv6 site counts as one.
	for i := range maxHalfOpen {
		if _, err := open(fmt.Sprintf("/ip6/2001:db8::%d/tcp/1", i+1)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := open("/ip6/2001:db8::ffff/tcp/1"); err == nil {
		t.Error("one subscriber's addresses are not counted together")
	}
}
