package compose

import (
	"maps"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"peercompute/pkg/mesh"
)

// namedNetworks is what the networks of a file are called here. One that the file gives
// a name of its own is shared with whatever else of the owner's names it.
func namedNetworks(p *types.Project) (out map[string]string, bad []string) {
	out = map[string]string{}
	all := taken{}
	for _, key := range slices.Sorted(maps.Keys(p.Networks)) {
		n := p.Networks[key]
		name := label(n.Name)
		switch {
		case n.Name == p.Name+"_default":
			name = p.Name
		case n.Name == p.Name+"_"+key:
			name = within(p.Name, key)
		}
		if n.Driver != "" && n.Driver != "bridge" {
			bad = append(bad, "networks."+key+": the driver "+n.Driver+" is not supported")
		}
		bad = append(bad, all.name("the networks", key, name)...)
		out[key] = name
	}
	return out, bad
}

// join puts a service into its networks, under the names that the file knows it by.
func join(spec *mesh.Spec, s types.ServiceConfig, networks map[string]string, say func(string, ...any)) {
	if spec.Name != s.Name {
		spec.Aliases = append(spec.Aliases, strings.ToLower(s.Name))
	}
	for i, key := range slices.Sorted(maps.Keys(s.Networks)) {
		if i == 0 {
			spec.Network = networks[key]
		} else {
			spec.Networks = append(spec.Networks, networks[key])
		}
		if c := s.Networks[key]; c != nil {
			for _, a := range c.Aliases {
				spec.Aliases = append(spec.Aliases, strings.ToLower(a))
			}
		}
	}
	slices.Sort(spec.Aliases)
	spec.Aliases = slices.Compact(spec.Aliases)
	for _, l := range s.Links {
		if to, as, ok := strings.Cut(l, ":"); ok && to != as {
			say("the link %s gives %s another name, which is not supported: give it an alias in its network", l, to)
		}
	}
}

// egress is what a service may connect to besides its networks. Compose has no word for
// it, so it is an extension, of the service or else of the file.
func egress(spec *mesh.Spec, s types.ServiceConfig, ofFile any, say func(string, ...any)) {
	v, ok := s.Extensions["x-egress"]
	if !ok {
		v = ofFile
	}
	if v == nil {
		return
	}
	text, _ := v.(string)
	var err error
	if spec.Egress, spec.Hosts, err = mesh.ParseEgress(text); err != nil {
		say("x-egress: %s", mesh.AsError(err).Msg)
	}
}
