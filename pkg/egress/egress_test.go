package egress_test

import (
	"context"
	"net"
	"net/netip"
	"testing"

	"peercompute/pkg/egress"
	"peercompute/pkg/mesh"
)

// A machine with a public address of its own, in a network of public addresses.
func machine() ([]netip.Prefix, error) {
	return []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8"), netip.MustParsePrefix("25.1.2.3/24"), netip.MustParsePrefix("2a00:1::5/64")}, nil
}

func TestOnlyPublicAddressesPass(t *testing.T) {
	d := egress.Dialer{Networks: machine}
	for addr, want := range map[string]bool{
		"25.1.3.1": true, "8.8.8.8": true, "2a00:1:0:1::5": true,
		"25.1.2.3": false, "25.1.2.99": false, "2a00:1::5": false, "2a00:1::77": false, "::ffff:25.1.2.3": false,
		"127.0.0.1": false, "10.0.0.1": false, "172.17.0.1": false, "192.168.1.1": false, "169.254.169.254": false, "100.64.0.1": false,
		"0.0.0.0": false, "224.0.0.1": false, "255.255.255.255": false, "198.18.0.53": false, "203.0.113.9": false,
		"::1": false, "fe80::1": false, "fe80::1%eth0": false, "fd00::1": false, "::ffff:10.0.0.1": false, "64:ff9b::a00:1": false, "2002:a00:1::": false,
	} {
		err := d.Check(netip.MustParseAddr(addr))
		if (err == nil) != want || err != nil && mesh.KindOf(err) != mesh.Denied {
			t.Errorf("%s: got %v, want it to pass: %t", addr, err, want)
		}
	}
}

func TestNothingIsPublicToWhoDoesNotKnowItself(t *testing.T) {
	d := egress.Dialer{Networks: func() ([]netip.Prefix, error) { return nil, mesh.Errorf(mesh.Unavailable, "no") }}
	if d.Check(netip.MustParseAddr("8.8.8.8")) == nil {
		t.Error("an address passes, though it may be this machine's")
	}
}

// This very machine's addresses, as the system tells them.
func TestOwnAddressesAreRefused(t *testing.T) {
	addrs, err := net.InterfaceAddrs()
	if err != nil || len(addrs) == 0 {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if (egress.Dialer{}).Check(netip.MustParsePrefix(a.String()).Addr()) == nil {
			t.Errorf("%s passes", a)
		}
	}
}

func TestNamesMeanPublicAddressesOnly(t *testing.T) {
	names := map[string][]netip.Addr{
		"mixed.example": {netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("8.8.4.4"), netip.MustParseAddr("25.1.2.3")},
		"inner.example": {netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("fe80::1"), netip.MustParseAddr("169.254.169.254")},
	}
	d := egress.Dialer{Networks: machine, Resolve: func(_ context.Context, host string) ([]netip.Addr, error) {
		if a, ok := names[host]; ok {
			return a, nil
		}
		return nil, &net.DNSError{IsNotFound: true}
	}}
	if got, err := d.Public(t.Context(), "mixed.example"); err != nil || len(got) != 1 || got[0].String() != "8.8.4.4" {
		t.Errorf("got %v, %v", got, err)
	}
	if got, err := d.Public(t.Context(), "inner.example"); mesh.KindOf(err) != mesh.Denied {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := d.Dial(t.Context(), "tcp", mesh.Host{Name: "inner.example", Port: 80}); mesh.KindOf(err) != mesh.Denied {
		t.Errorf("dialled a name of this machine: %v", err)
	}
	for _, own := range []string{"25.1.2.3", "25.1.2.99", "2a00:1::5"} { // public, and this machine's or next to it
		if _, err := d.Dial(t.Context(), "tcp", mesh.Host{Addr: netip.MustParseAddr(own), Port: 80}); mesh.KindOf(err) != mesh.Denied {
			t.Errorf("dialled %s: %v", own, err)
		}
	}
	if got, err := d.Public(t.Context(), "none.example"); mesh.KindOf(err) != mesh.NotFound {
		t.Errorf("got %v, %v", got, err)
	}
}
