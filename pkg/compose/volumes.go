package compose

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"peercompute/pkg/mesh"
)

// namedVolumes reads the volumes of a file. What it calls one is made unique with the
// project's name, as Compose does it, unless the file gives it a name of its own.
func namedVolumes(p *types.Project) (out map[string]mesh.VolumeMount, bad []string) {
	out = map[string]mesh.VolumeMount{}
	all := taken{}
	for _, key := range slices.Sorted(maps.Keys(p.Volumes)) {
		v := p.Volumes[key]
		say := func(format string, args ...any) {
			bad = append(bad, fmt.Sprintf("volumes.%s: "+format, append([]any{key}, args...)...))
		}
		m := mesh.VolumeMount{Name: label(v.Name)}
		if v.Name == p.Name+"_"+key {
			m.Name = within(p.Name, key)
		}
		bad = append(bad, all.name("the volumes", key, m.Name)...)
		if v.Driver != "" && v.Driver != "local" {
			say("the driver %q is not supported", v.Driver)
		}
		if text := v.DriverOpts["size"]; text != "" {
			var n types.UnitBytes
			if err := n.DecodeMapstructure(text); err != nil || n < mesh.MinVolume || n > mesh.MaxVolume {
				say("the size %q is not one from 16M to 1T", text)
			}
			m.Size = int64(n)
		}
		out[key] = m
	}
	return out, bad
}

// mounts are the volumes of a service. Only named ones can be had: a directory of the
// host is never given to a container.
func mounts(s types.ServiceConfig, volumes map[string]mesh.VolumeMount, say func(string, ...any)) (out []mesh.VolumeMount) {
	for _, v := range s.Volumes {
		switch {
		case v.Type == types.VolumeTypeBind:
			say("%s:%s is a directory of a host, which no container here can have: name a volume instead; what the program only reads goes into its image, with build", v.Source, v.Target)
			continue
		case v.Type == types.VolumeTypeTmpfs:
			continue // see scratch
		case v.Type != types.VolumeTypeVolume:
			say("a mount of type %q is not supported", v.Type)
			continue
		case v.Source == "":
			say("the volume at %s has no name: give it one, so that it can be found again", v.Target)
			continue
		case v.Volume != nil && v.Volume.Subpath != "":
			say("the subpath of the volume at %s is not supported", v.Target)
		}
		m, ok := volumes[v.Source]
		if !ok {
			say("the volume %s is not named under volumes", v.Source)
			continue
		}
		m.Target, m.ReadOnly = v.Target, v.ReadOnly
		out = append(out, m)
	}
	return out
}

// oneUser: a volume belongs to one workload at a time, also where one only reads.
func oneUser(p *types.Project) (bad []string) {
	users := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(p.Services)) {
		for _, v := range p.Services[name].Volumes {
			if v.Type == types.VolumeTypeVolume && v.Source != "" && !slices.Contains(users[v.Source], name) {
				users[v.Source] = append(users[v.Source], name)
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(users)) {
		if len(users[key]) > 1 {
			bad = append(bad, fmt.Sprintf("volumes.%s: %s share it, and a volume belongs to one workload at a time: give each its own, or make one service of them", key, strings.Join(users[key], " and ")))
		}
	}
	return bad
}
