package compose

import (
	"fmt"
	"maps"
	"slices"

	"github.com/compose-spec/compose-go/v2/types"

	"peercompute/pkg/mesh"
)

// namedVolumes reads the volumes of a file. What it calls one is made unique with the
// project's name, as Compose does it, unless the file gives it a name of its own.
func namedVolumes(p *types.Project) (out map[string]mesh.VolumeMount, bad []string) {
	out = map[string]mesh.VolumeMount{}
	for _, key := range slices.Sorted(maps.Keys(p.Volumes)) {
		v := p.Volumes[key]
		say := func(format string, args ...any) {
			bad = append(bad, fmt.Sprintf("volumes.%s: "+format, append([]any{key}, args...)...))
		}
		m := mesh.VolumeMount{Name: label(v.Name)}
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
			say("%s:%s is a directory of a host, which no container here can have: name a volume instead", v.Source, v.Target)
			continue
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
