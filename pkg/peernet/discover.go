package peernet

import (
	"context"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/zeroconf/v2"
	manet "github.com/multiformats/go-multiaddr/net"

	"peercompute/pkg/mesh"
)

// This file is multicast DNS on the local network: saying that this node is there,
// and looking who else says so. What is heard is what anybody on the network cares
// to say. It is shown to a person and used for nothing else.

const (
	serviceName   = "_peercompute._udp"
	serviceDomain = "local"
	addrPrefix    = "dnsaddr=" // as libp2p's own mDNS writes addresses
	namePrefix    = "name="

	maxFound      = 64 // neighbours in one look
	maxFoundAddrs = 8
	maxText       = 255 // bytes of one string in a DNS record
	renewEvery    = time.Minute
)

// Found is a neighbour, as it says itself.
type Found struct {
	ID    mesh.PeerID
	Name  string   // a DNS label, or empty
	Addrs []string // each ends in /p2p/ID
}

// Announce tells the local network that this node is there, under name, until ctx
// ends. Addresses that only this machine reaches are not told.
func (n *Net) Announce(ctx context.Context, name string) error {
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	var server *zeroconf.Server
	var said []string
	defer func() {
		if server != nil {
			server.Shutdown()
		}
	}()
	for {
		if text, ips := n.announcement(name); !slices.Equal(text, said) {
			if server != nil {
				server.Shutdown()
				server = nil
			}
			said = text
			if len(ips) > 0 {
				id := n.ID().String()
				s, err := zeroconf.RegisterProxy(id, serviceName, serviceDomain, 4001, strings.ToLower(id[len(id)-16:]), ips, text, nil)
				if err != nil {
					// A network may come later.
					n.cfg.Log.Warn("cannot announce this node on the local network; trying again", "err", err)
					said = nil
				}
				server = s
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// announcement is the text to be told, and the addresses that it is about.
func (n *Net) announcement(name string) (text, ips []string) {
	if mesh.ValidLabel(name) {
		text = append(text, namePrefix+name)
	}
	addrs, err := n.host.Network().InterfaceListenAddresses()
	if err != nil {
		return text, nil
	}
	for _, a := range addrs {
		ip, err := manet.ToIP(a)
		full := addrPrefix + a.String() + "/p2p/" + n.ID().String()
		if err != nil || manet.IsIPLoopback(a) || manet.IsIP6LinkLocal(a) || len(full) > maxText || len(ips) >= maxFoundAddrs {
			continue
		}
		text, ips = append(text, full), append(ips, ip.String())
	}
	slices.Sort(text)
	return text, ips
}

// Discover asks the local network who is there, and listens for d.
func (n *Net) Discover(ctx context.Context, d time.Duration) ([]Found, error) {
	if !n.looking.TryLock() {
		return nil, mesh.Errorf(mesh.Conflict, "this node is looking around already").WithHint("try again in a moment")
	}
	defer n.looking.Unlock()
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var ways []net.Interface
	all, err := net.Interfaces()
	for _, i := range all {
		if i.Flags&net.FlagUp != 0 && i.Flags&net.FlagMulticast != 0 {
			ways = append(ways, i)
		}
	}
	if err != nil || len(ways) == 0 {
		return nil, mesh.Errorf(mesh.Unavailable, "this machine has no network on which neighbours could be asked for").Because(err)
	}
	heard := neighbours{self: n.ID()}
	// A machine without one of the two families is no reason to give up.
	for _, family := range []zeroconf.IPType{zeroconf.IPv4AndIPv6, zeroconf.IPv4, zeroconf.IPv6} {
		entries := make(chan *zeroconf.ServiceEntry, 16)
		failed, ended := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(ended)
			for {
				select {
				case e, more := <-entries: // Browse closes it, unless it did not even begin
					if !more {
						return
					}
					heard.add(e.Text)
				case <-failed:
					return
				}
			}
		}()
		if err = zeroconf.Browse(ctx, serviceName, serviceDomain, entries, zeroconf.SelectIPTraffic(family), zeroconf.SelectIfaces(ways)); err == nil {
			<-ended
			return heard.found, nil
		}
		close(failed)
		<-ended
	}
	return nil, mesh.Errorf(mesh.Unavailable, "cannot ask the local network").
		WithHint("is UDP port 5353 held by another program, or closed by a firewall?").Because(err)
}

// neighbours gathers what is heard, within bounds.
type neighbours struct {
	self  mesh.PeerID
	found []Found
}

// add takes in the text of one announcement. What is not well formed is dropped.
func (h *neighbours) add(text []string) {
	name := ""
	for _, s := range text {
		if s, ok := strings.CutPrefix(s, namePrefix); ok && mesh.ValidLabel(s) {
			name = s
		}
	}
	for _, s := range text {
		s, ok := strings.CutPrefix(s, addrPrefix)
		if !ok || len(s) > maxText {
			continue
		}
		addr, id, err := ParseAddr(s)
		if err != nil || id == "" || addr == "" || id == h.self {
			continue
		}
		at := slices.IndexFunc(h.found, func(f Found) bool { return f.ID == id })
		if at < 0 {
			if len(h.found) >= maxFound {
				continue
			}
			h.found = append(h.found, Found{ID: id})
			at = len(h.found) - 1
		}
		f := &h.found[at]
		if f.Name == "" {
			f.Name = name
		}
		if full := addr + "/p2p/" + id.String(); len(f.Addrs) < maxFoundAddrs && !slices.Contains(f.Addrs, full) {
			f.Addrs = append(f.Addrs, full)
		}
	}
}
