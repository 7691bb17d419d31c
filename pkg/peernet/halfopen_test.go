package peernet

import (
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"

	"peercompute/pkg/mesh"
)

// One address cannot hold all of the connections that may be in their handshake: that
// is libp2p's rate limit for each address, which this test holds on to.
func TestOneAddressCannotHoldAllHandshakes(t *testing.T) {
	rm, err := newResourceManager(func(mesh.PeerID) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	defer rm.Close()
	got := 0
	for range 4 * maxTransient {
		if _, err := rm.OpenConnection(network.DirInbound, true, ma.StringCast("/ip4/192.0.2.1/tcp/4001")); err == nil {
			got++
		}
	}
	if got == 0 || got > maxTransient/4 {
		t.Errorf("one address holds %d connections of the %d that may be unfinished", got, maxTransient)
	}
	for _, addr := range []string{"/ip4/192.0.2.2/tcp/4001", "/ip6/2001:db8::1/tcp/4001"} {
		if _, err := rm.OpenConnection(network.DirInbound, true, ma.StringCast(addr)); err != nil {
			t.Errorf("another address, %s: %v", addr, err)
		}
	}
}
