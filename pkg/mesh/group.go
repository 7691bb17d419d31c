package mesh

import (
	"path"
	"slices"
	"strings"
)

// Bounds of what a container is in a group of them.
const (
	MaxNetworks = 8 // of one workload
	MaxAliases  = 8
	maxAlias    = 63 // characters, as of any label of a name
	maxWorkDir  = 256
)

// AllNetworks lists the private networks that a workload is in.
func (s Spec) AllNetworks() []string {
	if s.Network == "" {
		return nil
	}
	return append([]string{s.Network}, s.Networks...)
}

// Meets reports whether two workloads of one owner are in one network.
func (s Spec) Meets(o Spec) bool {
	mine := s.AllNetworks()
	return slices.ContainsFunc(o.AllNetworks(), func(n string) bool { return slices.Contains(mine, n) })
}

// Called reports whether others in its networks find it under a name.
func (s Spec) Called(name string) bool { return s.Name == name || slices.Contains(s.Aliases, name) }

// ValidAlias reports whether a workload may have a name besides its own: one label, lower
// case, in which _ may be, as in the names of Compose services. It is never the name of
// anything public, which has a dot.
func ValidAlias(s string) bool {
	return s != "" && len(s) <= maxAlias && s[0] != '-' && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-_") == "" && s != "localhost"
}

// validateGroup says what is wrong with what s says of others like it, and of how its
// image is started.
func (s Spec) validateGroup(say func(string, ...any)) {
	if s.Runtime != Container && len(s.Entrypoint)+len(s.Aliases)+len(s.Networks)+len(s.WorkDir)+len(s.Project) > 0 {
		say("an entry point, a working directory, aliases, networks and a project are of containers only")
	}
	if len(s.Entrypoint) > 0 && s.Entrypoint[0] == "" {
		say("the entry point has no program")
	}
	if d := s.WorkDir; d != "" && (!path.IsAbs(d) || path.Clean(d) != d || len(d) > maxWorkDir || strings.ContainsFunc(d, func(r rune) bool { return r < ' ' || r > '~' })) {
		say("the working directory %q is not a plain absolute path", clip(d, 80))
	}
	if s.Project != "" && !ValidLabel(s.Project) {
		say("the project %q is not a DNS label of at most %d characters", clip(s.Project, 80), MaxName)
	}
	if len(s.Networks) > 0 && s.Network == "" {
		say("further networks need a first one")
	}
	if len(s.Networks) >= MaxNetworks || len(s.Aliases) > MaxAliases {
		say("more than %d networks or %d aliases", MaxNetworks, MaxAliases)
		return
	}
	for _, n := range s.Networks {
		if !ValidLabel(n) {
			say("network %q is not a DNS label of at most %d characters", clip(n, 80), MaxName)
		}
	}
	for _, a := range s.Aliases {
		if !ValidAlias(a) {
			say("alias %q is not one label of at most %d characters (a-z, 0-9, - and _)", clip(a, 80), maxAlias)
		}
	}
	if all := slices.Sorted(slices.Values(s.AllNetworks())); len(slices.Compact(all)) != len(s.AllNetworks()) {
		say("a network is named twice")
	}
}
