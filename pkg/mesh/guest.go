package mesh

import (
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// What a WASM guest may do besides computing. A guest gets nothing that its spec
// does not ask for, and a spec asks for nothing by itself.

// Clock says which wall clock a guest sees. The zero value is one that begins at a
// fixed date, so that a guest does not learn what time it is.
type Clock string

// ClockWall is the true time.
const ClockWall Clock = "wall"

// EgressAllow lets a guest make HTTP requests to the hosts that its spec lists,
// through peerd; it has no sockets. A container may connect to them by TCP.
const EgressAllow Egress = "allow"

// EgressPrivate is granted beside EgressAllow to let such a list name addresses
// that are not public: this machine's own, and those of its networks.
const EgressPrivate = "private"

// Server is the shape of a guest that keeps running: it accepts connections on a
// listener that is open when it begins, as LISTEN_FDS says.
const Server Shape = "server"

// Bounds of what a guest may ask for.
const (
	MaxScratch     = 256 << 20 // bytes
	MaxHosts       = 32
	MaxConcurrency = 256
)

// Defaults of a server.
const (
	DefaultIdle       = 5 * time.Minute
	DefaultServerFuel = 2_000_000_000      // a second: what a core burns
	DefaultFuelDay    = 20_000_000_000_000 // a day: about three hours of a core
)

// CountedMemory is what counts against a quota of memory, in bytes. A guest's
// scratch directory lies in memory.
func (s Spec) CountedMemory() int64 {
	r := s.Resources
	if s.Runtime != Wasm || r.Memory < 0 {
		return r.Memory
	}
	if r.Disk < 0 || r.Memory > math.MaxInt64-r.Disk {
		return -1 // nothing has room for it
	}
	return r.Memory + r.Disk
}

// Host is an entry of an allow-list: a host and a port, and nothing like either.
type Host struct {
	Name string     // lower case; empty if it is an address
	Addr netip.Addr // valid if it is one
	Port uint16
}

// ParseHost reads HOST:PORT, where HOST is a DNS name or an address.
func ParseHost(s string) (Host, error) {
	bad := Errorf(Invalid, "%q is not HOST:PORT", clip(s, 80)).WithHint("such as api.example.org:443, 192.0.2.7:80 or [2001:db8::1]:443")
	if ap, err := netip.ParseAddrPort(s); err == nil {
		if ap.Port() == 0 || ap.Addr().Zone() != "" {
			return Host{}, bad
		}
		return Host{Addr: ap.Addr().Unmap(), Port: ap.Port()}, nil
	}
	name, port, ok := strings.Cut(s, ":")
	n, err := strconv.ParseUint(port, 10, 16)
	if !ok || err != nil || n == 0 || !validHost(name) {
		return Host{}, bad
	}
	return Host{Name: strings.ToLower(name), Port: uint16(n)}, nil
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}

// validHost reports whether s is a DNS name. What looks like an address is none:
// resolvers read 127.1 and 0x7f000001 as addresses.
func validHost(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	last := ""
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		if strings.Trim(strings.ToLower(label), "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
		last = strings.ToLower(label)
	}
	return strings.Trim(last, "0123456789") != "" && !strings.HasPrefix(last, "0x")
}

// String is the entry as it is written in a list.
func (h Host) String() string {
	if h.Addr.IsValid() {
		return netip.AddrPortFrom(h.Addr, h.Port).String()
	}
	return h.Name + ":" + strconv.Itoa(int(h.Port))
}

// Private reports whether the entry is an address that is not public.
func (h Host) Private() bool { return h.Addr.IsValid() && !Public(h.Addr) }

// Public reports whether an address is one of the public internet: no address of
// this machine or of a network that it is part of, no group, nothing reserved, and
// none that a gateway translates into such a one.
func Public(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if !a.IsValid() || !a.IsGlobalUnicast() || a.IsPrivate() {
		return false
	}
	for _, p := range special {
		if p.Contains(a) {
			return false
		}
	}
	return true
}

// special are the blocks of the IANA registries of special addresses that netip
// takes for ordinary ones.
var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"), // carriers' own
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("192.88.99.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"),
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("::/96"),
	netip.MustParsePrefix("64:ff9b::/96"), // translated to IPv4
	netip.MustParsePrefix("64:ff9b:1::/48"),
	netip.MustParsePrefix("100::/64"),
	netip.MustParsePrefix("2001::/23"), // Teredo among them
	netip.MustParsePrefix("2001:db8::/32"),
	netip.MustParsePrefix("2002::/16"), // 6to4
	netip.MustParsePrefix("3fff::/20"),
	netip.MustParsePrefix("5f00::/16"),
	netip.MustParsePrefix("fec0::/10"),
}

// validateGuest says what is wrong with what s asks for as a guest.
func (s Spec) validateGuest(say func(string, ...any)) {
	if s.Runtime != Wasm {
		if s.Clock != "" || s.Concurrency != 0 || s.Idle != 0 || s.FuelDay != 0 {
			say("clock, concurrency, idle time and fuel a day are of WASM guests only")
		}
		return
	}
	if s.Clock != "" && s.Clock != ClockWall {
		say("clock %q is not wall", s.Clock)
	}
	if s.Resources.Disk > MaxScratch {
		say("a scratch directory of %d bytes is over %d MiB", s.Resources.Disk, MaxScratch>>20)
	}
	if s.Concurrency < 0 || s.Concurrency > MaxConcurrency {
		say("concurrency %d is not from 1 to %d", s.Concurrency, MaxConcurrency)
	}
	if s.Idle < 0 || s.Idle > 0 && s.Idle < time.Second {
		say("idle time %s is under 1s", s.Idle)
	}
	if s.Shape != Server && (s.Idle != 0 || s.FuelDay != 0) {
		say("idle time and fuel a day are of servers only")
	}
	if s.Shape == Job && s.Concurrency != 0 {
		say("a job has no concurrency")
	}
}
