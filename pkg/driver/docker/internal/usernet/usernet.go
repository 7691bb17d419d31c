// Package usernet is the way out of a network namespace that has none: one TUN
// device inside, whose other end is a TCP/IP stack in this process. The kernel
// forwards nothing, on either side. A connection of the workload ends here, is
// judged here, and is made anew from here if it may be; without this process there
// is no device, and so no way.
//
// It owns the device, the stack and the bounds. Where a connection may go is the
// Config's to say.
package usernet

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"peercompute/pkg/mesh"
)

// Bounds of one workload's way out.
const (
	MaxConns     = 256 // TCP connections at once; more are refused
	MaxFlows     = 128 // UDP flows at once; more are dropped
	maxDialling  = 64  // connections being made; more SYNs are dropped, and come again
	maxQuestions = 16  // name lookups at once; more are dropped
	tcpBuffer    = 128 << 10
	mtu          = 65520
	flowIdle     = 60 * time.Second
	dialTimeout  = 15 * time.Second
	lookupTime   = 10 * time.Second
)

// Config is what Open needs.
type Config struct {
	// Namespace is the file of the workload's network namespace.
	Namespace string
	// Address is the workload's, Resolver where names are asked; both IPv4.
	Address, Resolver netip.Addr
	// Check says whether the workload may send to an address now. It must not block
	// for long. nil denies.
	Check func(network string, to netip.AddrPort) error
	// Dial makes a connection of the workload's, if it may be. nil denies.
	Dial func(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error)
	// Lookup is the IPv4 addresses of a name, as the workload shall see them, and
	// mesh.NotFound or mesh.Denied if it has none. nil denies.
	Lookup func(ctx context.Context, name string) ([]netip.Addr, error)
	Log    *slog.Logger // nil = discard
}

func (c *Config) fill() error {
	if !c.Address.Is4() || !c.Resolver.Is4() || c.Namespace == "" {
		return mesh.Errorf(mesh.Internal, "a way out needs a namespace and IPv4 addresses")
	}
	deny := mesh.Errorf(mesh.Denied, "nothing is allowed")
	if c.Check == nil {
		c.Check = func(string, netip.AddrPort) error { return deny }
	}
	if c.Dial == nil {
		c.Dial = func(context.Context, string, netip.AddrPort) (net.Conn, error) { return nil, deny }
	}
	if c.Lookup == nil {
		c.Lookup = func(context.Context, string) ([]netip.Addr, error) { return nil, deny }
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}
