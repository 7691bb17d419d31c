//go:build !linux

package docker

import (
	"context"
	"net"
	"net/netip"
	"runtime"

	"peercompute/pkg/mesh"
)

var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// dialInside cannot work here: the engine's containers run in a virtual machine,
// whose network namespaces are out of reach.
func dialInside(context.Context, string, netip.AddrPort) (net.Conn, error) { return nil, canEnter() }

func canEnter() error {
	return mesh.Errorf(mesh.Unsupported, "containers that answer on a port run on Linux peers only, and this is %s", runtime.GOOS).
		WithHint("deploy a WASM service here, or the container to a Linux peer")
}
