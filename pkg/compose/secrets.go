package compose

import (
	"fmt"
	"maps"
	"path"
	"slices"

	"github.com/compose-spec/compose-go/v2/types"

	"peercompute/pkg/mesh"
)

// Secret is one that a file on this machine holds.
type Secret struct {
	Name string // under which it is kept at the peer
	File string // absolute
}

// namedSecrets reads the secrets of a file: those whose values lie in files, and all by
// what the file calls them. One of a file is made unique with the project's name, as
// Compose does it; an external one is there already.
func namedSecrets(p *types.Project) (of []Secret, names map[string]string, bad []string) {
	names = map[string]string{}
	all := taken{}
	for _, key := range slices.Sorted(maps.Keys(p.Secrets)) {
		s := p.Secrets[key]
		name := label(s.Name)
		if s.Name == p.Name+"_"+key {
			name = within(p.Name, key)
		}
		bad = append(bad, all.name("the secrets", key, name)...)
		names[key] = name
		switch {
		case bool(s.External) && s.File != "":
			bad = append(bad, fmt.Sprintf("secrets.%s is external, and has a file", key))
		case bool(s.External):
		case s.File == "":
			bad = append(bad, fmt.Sprintf("secrets.%s has no file and is not external", key))
		default:
			of = append(of, Secret{Name: name, File: s.File})
		}
	}
	return of, names, bad
}

// secretMounts are the secrets of a service.
func secretMounts(s types.ServiceConfig, names map[string]string, say func(string, ...any)) (out []mesh.SecretMount) {
	for _, r := range s.Secrets {
		name, ok := names[r.Source]
		if !ok {
			say("the secret %s is not named under secrets", r.Source)
			continue
		}
		if r.UID != "" || r.GID != "" || r.Mode != nil {
			say("uid, gid and mode of the secret %s are not supported: only the service's program can read it", r.Source)
		}
		file := r.Target
		if path.Dir(file) == mesh.SecretsDir {
			file = path.Base(file)
		}
		if file == "" {
			file = r.Source
		}
		m := mesh.SecretMount{Name: name, Target: file}
		if m.Target == m.Name {
			m.Target = ""
		}
		out = append(out, m)
	}
	return out
}
