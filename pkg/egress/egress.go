// Package egress decides what of the world outside a workload may be connected to,
// and connects: addresses of the public internet, never this machine's own or those
// of the networks that it is part of. It knows neither workloads nor grants.
package egress

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"peercompute/pkg/mesh"
)

// Rule is what a refusal of this package names.
const Rule = "egress.public"

const (
	dialTimeout = 10 * time.Second
	maxAddrs    = 4 // of a name, that are tried
)

// Dialer connects on a workload's behalf. The zero value is ready.
type Dialer struct {
	// Resolve is the addresses of a name; nil = the system's resolver.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)
	// Networks is this machine's addresses, each with its network; nil = asked of the
	// system each time, because they change.
	Networks func() ([]netip.Prefix, error)
}

// Check refuses an address that is not public, or is one of this machine's, or of a
// network that this machine is part of, whatever its numbers. It fails with
// mesh.Denied.
func (d Dialer) Check(a netip.Addr) error {
	own, err := d.networks()
	if err != nil {
		return err
	}
	return check(a, own)
}

func check(a netip.Addr, own []netip.Prefix) error {
	a = a.Unmap().WithZone("")
	if !mesh.Public(a) {
		return mesh.Errorf(mesh.Denied, "%s is no public address", a).WithRule(Rule)
	}
	for _, p := range own {
		if p.Contains(a) {
			return mesh.Errorf(mesh.Denied, "%s is this machine or a neighbour of it", a).WithRule(Rule)
		}
	}
	return nil
}

// Public is the addresses of a name that Check lets pass, at most four. It fails with
// mesh.Denied if none does, with mesh.NotFound if the name has no address, and with
// mesh.Unavailable if that could not be learned.
func (d Dialer) Public(ctx context.Context, name string) ([]netip.Addr, error) {
	resolve := d.Resolve
	if resolve == nil {
		resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	found, err := resolve(ctx, name)
	if err != nil {
		kind := mesh.Unavailable
		if dns := (*net.DNSError)(nil); errors.As(err, &dns) && dns.IsNotFound {
			kind = mesh.NotFound
		}
		return nil, mesh.Errorf(kind, "%s has no address", name).Because(err)
	}
	own, err := d.networks()
	if err != nil {
		return nil, err
	}
	var ok []netip.Addr
	for _, a := range found {
		if a = a.Unmap(); check(a, own) == nil && len(ok) < maxAddrs {
			ok = append(ok, a)
		}
	}
	if len(ok) == 0 {
		return nil, mesh.Errorf(mesh.Denied, "%s means no public address", name).WithRule(Rule)
	}
	return ok, nil
}

// Dial connects to a host of an allow-list. A name is looked up here, and the
// address that was judged is the one that is connected to: a name that means
// another address the next moment gains nothing. An address that is not public is on
// the list as such, and admission asked for the grant; of a public one admission
// cannot know that it is this machine's, so that is asked here.
func (d Dialer) Dial(ctx context.Context, network string, h mesh.Host) (net.Conn, error) {
	addrs := []netip.Addr{h.Addr}
	var err error
	switch {
	case h.Name != "":
		addrs, err = d.Public(ctx, h.Name)
	case mesh.Public(h.Addr):
		err = d.Check(h.Addr)
	}
	if err != nil {
		return nil, err
	}
	out := net.Dialer{Timeout: dialTimeout}
	var errs []error
	for _, a := range addrs {
		c, err := out.DialContext(ctx, network, netip.AddrPortFrom(a, h.Port).String())
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
	}
	return nil, mesh.Errorf(mesh.Unavailable, "%s cannot be reached", h).Because(errors.Join(errs...))
}

// DialPublic connects to an address that Check lets pass.
func (d Dialer) DialPublic(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	if err := d.Check(to.Addr()); err != nil {
		return nil, err
	}
	return d.Dial(ctx, network, mesh.Host{Addr: to.Addr(), Port: to.Port()})
}

// networks is this machine's addresses. If they cannot be learned nothing is public.
func (d Dialer) networks() ([]netip.Prefix, error) {
	if d.Networks != nil {
		return d.Networks()
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, mesh.Errorf(mesh.Unavailable, "this machine's own addresses cannot be learned").Because(err)
	}
	var own []netip.Prefix
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			own = append(own, netip.PrefixFrom(p.Addr().Unmap().WithZone(""), p.Bits()))
		}
	}
	return own, nil
}
