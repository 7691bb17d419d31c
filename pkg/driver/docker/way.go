package docker

import (
	"context"
	"encoding/binary"
	"hash/fnv"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"peercompute/pkg/driver/docker/internal/usernet"
	"peercompute/pkg/mesh"
)

// The addresses inside: of the block for benchmarks (RFC 2544), which nobody else has.
var (
	resolverAddr = netip.AddrFrom4([4]byte{198, 18, 0, 53})
	listedHosts  = netip.MustParsePrefix("198.18.1.0/24") // the n-th name of an allow-list
	members      = netip.MustParsePrefix("198.19.0.0/16") // workloads
)

// way is what one run of a workload reaches, and how. All that it may reach is
// decided here, at each connection.
type way struct {
	driver  *Driver
	work    mesh.Workload // of the spec only what is said of egress, and the name
	address netip.Addr
	since   time.Time          // when its sandbox was made
	hosts   map[mesh.Host]bool // the allow-list
	names   []string           // the names on it, each of which has its address inside

	// Under the driver's lock; the first two do not change once it is open.
	sandbox   string // ID of the container
	namespace string
	net       *usernet.Net // nil = not open
}

// newWay makes the way of w, not open yet, at an address; none = one that is free.
func (d *Driver) newWay(w mesh.Workload, sandbox string, at netip.Addr, since time.Time) *way {
	y := &way{driver: d, work: w, sandbox: sandbox, address: at, since: since, hosts: map[mesh.Host]bool{}}
	for _, text := range w.Spec.Hosts {
		if h, err := mesh.ParseHost(text); err == nil {
			y.hosts[h] = true
			if h.Name != "" {
				y.names = append(y.names, h.Name)
			}
		}
	}
	slices.Sort(y.names)
	y.names = slices.Compact(y.names)
	d.mu.Lock()
	defer d.mu.Unlock()
	if !at.IsValid() {
		y.address = d.freeAddress(w.ID)
	}
	d.ways[y] = true
	return y
}

// freeAddress is an address that nobody else here has; the caller holds the lock. It
// follows from the workload, so that it mostly stays the same.
func (d *Driver) freeAddress(id mesh.WorkloadID) netip.Addr {
	taken := map[netip.Addr]bool{}
	for y := range d.ways {
		taken[y.address] = true
	}
	h := fnv.New32a()
	h.Write([]byte(id))
	for n := uint16(h.Sum32()); ; n++ {
		b := members.Addr().As4()
		binary.BigEndian.PutUint16(b[2:], n)
		if a := netip.AddrFrom4(b); n != 0 && n != 0xffff && !taken[a] {
			return a
		}
	}
}

// open makes the device in the namespace, and takes the workload into its network.
func (y *way) open(namespace string) error {
	n, err := usernet.Open(usernet.Config{
		Namespace: namespace, Address: y.address, Resolver: resolverAddr,
		Check: y.check, Dial: y.dial, Lookup: y.lookup, Log: y.driver.log.With("workload", y.work.ID),
	})
	if err != nil {
		return err
	}
	y.driver.mu.Lock()
	y.namespace, y.net = namespace, n
	y.driver.mu.Unlock()
	return nil
}

// close ends the way out. Twice is no harm.
func (y *way) close() error {
	y.driver.mu.Lock()
	delete(y.driver.ways, y)
	n := y.net
	y.net = nil
	y.driver.mu.Unlock()
	if n == nil {
		return nil
	}
	return n.Close()
}

// permitted asks whether the owner's grant still allows what the workload was
// started with.
func (y *way) permitted() error {
	if y.driver.mayConnect == nil {
		return mesh.Errorf(mesh.Denied, "this peer lets no container use the network")
	}
	return y.driver.mayConnect(y.work.Owner, y.work.Spec)
}

// listed is the entry of the allow-list that an address and a port inside mean.
func (y *way) listed(to netip.AddrPort) (mesh.Host, bool) {
	h := mesh.Host{Addr: to.Addr(), Port: to.Port()}
	if listedHosts.Contains(to.Addr()) {
		n := int(to.Addr().As4()[3]) - 1
		if n < 0 || n >= len(y.names) {
			return h, false
		}
		h = mesh.Host{Name: y.names[n], Port: to.Port()}
	}
	return h, y.hosts[h]
}

// check says whether the workload may send to an address, before anything is sent.
func (y *way) check(network string, to netip.AddrPort) error {
	if network == "tcp" && y.neighbour(func(o *way) bool { return o.address == to.Addr() }) != nil {
		return nil
	}
	switch y.work.Spec.Egress {
	case mesh.EgressInternet:
		if err := y.driver.out.Check(to.Addr()); err != nil {
			return err
		}
		return y.permitted()
	case mesh.EgressAllow:
		if _, ok := y.listed(to); ok && network == "tcp" {
			return y.permitted()
		}
	}
	return mesh.Errorf(mesh.Denied, "%s is nothing that this workload may connect to", to).WithRule("spec.egress")
}

// dial makes a connection for the workload.
func (y *way) dial(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	if err := y.check(network, to); err != nil {
		return nil, err
	}
	if o := y.neighbour(func(o *way) bool { return o.address == to.Addr() }); o != nil {
		// At the neighbour's own address, not its loopback: what it keeps to itself stays so.
		return dialInside(ctx, o.where(), to)
	}
	if y.work.Spec.Egress == mesh.EgressAllow {
		h, _ := y.listed(to)
		return y.driver.out.Dial(ctx, network, h)
	}
	return y.driver.out.DialPublic(ctx, network, to)
}

// lookup is what a name means to the workload. With an allow-list nobody else is ever
// asked, so that questions carry nothing out.
func (y *way) lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	if o := y.neighbour(func(o *way) bool { return o.work.Spec.Called(name) }); o != nil {
		return []netip.Addr{o.address}, nil
	}
	switch y.work.Spec.Egress {
	case mesh.EgressAllow:
		if n, ok := slices.BinarySearch(y.names, name); ok {
			b := listedHosts.Addr().As4()
			b[3] = byte(n + 1)
			return []netip.Addr{netip.AddrFrom4(b)}, nil
		}
	case mesh.EgressInternet:
		if !strings.Contains(name, ".") {
			break // a name of this machine's network
		}
		if err := y.permitted(); err != nil {
			return nil, err
		}
		found, err := y.driver.out.Public(ctx, name)
		return slices.DeleteFunc(found, func(a netip.Addr) bool { return !a.Is4() }), err
	}
	return nil, mesh.Errorf(mesh.NotFound, "the workload knows no such name")
}

// neighbour is another workload of the same owner in one of its networks, if one of them
// is what is looked for: the one that was there first, so that a name goes on meaning
// the old one while a new one takes its place.
func (y *way) neighbour(is func(*way) bool) *way {
	if y.work.Spec.Network == "" {
		return nil
	}
	d := y.driver
	var found []*way
	d.mu.Lock()
	for o := range d.ways {
		if o != y && o.net != nil && o.work.Spec.Meets(y.work.Spec) && is(o) {
			found = append(found, o)
		}
	}
	d.mu.Unlock()
	slices.SortFunc(found, func(a, b *way) int { return a.since.Compare(b.since) })
	owner := d.ownerNow(y.work.Owner)
	for _, o := range found {
		if d.ownerNow(o.work.Owner) == owner {
			return o
		}
	}
	return nil
}

// where is the file of the namespace.
func (y *way) where() string {
	y.driver.mu.Lock()
	defer y.driver.mu.Unlock()
	return y.namespace
}
