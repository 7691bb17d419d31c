package compose

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"peercompute/pkg/mesh"
)

// otherThanHTTP are the ports of common services that speak no HTTP, so that a public
// name would be of no use to them.
var otherThanHTTP = []uint16{
	22, 25, 53, 110, 143, 389, 465, 587, 636, 993, 995, 1433, 1521, 1883, 2181, 3306, 4222, 5432, 5433, 5672, 6379, 6380, 9042, 9092, 11211, 27017,
}

// ports: no port of a peer is opened. What a file publishes to every address, and may be
// HTTP, becomes the public name; the rest is reached through peerctl. A service without
// any is dialled at the port that it exposes.
func ports(spec *mesh.Spec, s types.ServiceConfig, say, note func(string, ...any)) {
	public := 0
	var rest []string
	for _, p := range s.Ports {
		n := uint16(min(p.Target, math.MaxUint16))
		switch {
		case p.Protocol != "" && p.Protocol != "tcp":
			say("a %s port cannot be published", p.Protocol)
			continue
		case p.Target == 0 || p.Target > math.MaxUint16:
			say("%d is not a port", p.Target)
			continue
		}
		if public == 0 && everywhere(p.HostIP) && !slices.Contains(otherThanHTTP, n) {
			public = int(n)
			continue
		}
		if spec.Port == 0 {
			spec.Port = n
		}
		local := p.Published
		if _, err := strconv.ParseUint(local, 10, 16); err != nil || local == "0" {
			local = strconv.Itoa(int(n))
		}
		rest = append(rest, fmt.Sprintf("%s:%d", local, n))
	}
	if public != 0 {
		spec.Port, spec.Publish = uint16(public), &mesh.Publication{}
	}
	if len(rest) > 0 {
		more := ""
		if len(rest) > 1 {
			more = fmt.Sprintf(" (and so on, %d ports)", len(rest))
		}
		note("no port is opened on the peer; reach it with: peerctl port-forward %s %s%s", spec.Name, rest[0], more)
	}
	if spec.Port != 0 || len(s.Expose) == 0 {
		return
	}
	n, err := strconv.ParseUint(strings.TrimSuffix(s.Expose[0], "/tcp"), 10, 16)
	if err != nil || n == 0 {
		say("it exposes %q, which is not one port", s.Expose[0])
	}
	spec.Port = uint16(n)
}

// everywhere reports whether a port was meant for others than the host itself.
func everywhere(hostIP string) bool { return hostIP == "" || hostIP == "0.0.0.0" || hostIP == "::" }
