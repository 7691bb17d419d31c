package docker

import (
	"net/netip"

	"peercompute/pkg/driver"
)

// AddressOf is a workload's address inside, at the port that it listens on.
func AddressOf(t driver.Task) netip.AddrPort {
	own := t.(*task)
	return netip.AddrPortFrom(own.way.address, own.port)
}
