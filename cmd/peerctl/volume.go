package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"peercompute/pkg/mesh"
)

// volumeFlags are the volumes of a container.
type volumeFlags struct {
	mounts []mesh.VolumeMount
	text   []string
}

func (f *volumeFlags) add(cmd *cobra.Command) {
	cmd.Flags().VarP(f, "volume", "v", "a volume of yours on that peer, NAME:/DIR[:ro,size=SIZE], made if it is not there (default size "+formatSize(mesh.DefaultVolume)+"); repeat for several")
}

func (f *volumeFlags) Set(s string) error {
	m, err := parseVolume(s)
	if err != nil {
		return err
	}
	f.mounts, f.text = append(f.mounts, m), append(f.text, s)
	return nil
}

func (f *volumeFlags) String() string { return strings.Join(f.text, " ") }
func (f *volumeFlags) Type() string   { return "VOLUME" }

// misplaced refuses what a WASM program could do nothing with.
func (f *volumeFlags) misplaced(wasm bool) error {
	if wasm && len(f.mounts) > 0 {
		return usagef("--volume is for containers: the files of a WASM program are --scratch, and last as long as it runs")
	}
	return nil
}

// parseVolume reads NAME:/DIR[:OPTION,…], as Docker has it. Options are ro, rw and
// size=SIZE.
func parseVolume(s string) (m mesh.VolumeMount, err error) {
	name, rest, ok := strings.Cut(s, ":")
	if !ok {
		return m, errors.New("volumes look like data:/var/lib/app, data:/srv:ro or data:/srv:size=2G")
	}
	target, options, _ := strings.Cut(rest, ":")
	m = mesh.VolumeMount{Name: name, Target: target}
	if why := m.Problem(); why != "" {
		return m, errors.New(why)
	}
	for _, o := range strings.FieldsFunc(options, func(r rune) bool { return r == ',' || r == ':' }) {
		value, sized := strings.CutPrefix(o, "size=")
		switch {
		case o == "ro":
			m.ReadOnly = true
		case o == "rw":
			m.ReadOnly = false
		case sized:
			if m.Size, err = parseSize(value); err != nil {
				return m, err
			}
			if m.Size == 0 {
				return m, errors.New("a volume cannot have no size")
			}
		default:
			return m, fmt.Errorf("%q is no option of a volume; there are ro, rw and size=SIZE", o)
		}
	}
	if why := m.Problem(); why != "" {
		return m, errors.New(why)
	}
	return m, nil
}

// describeVolume is one mount for people.
func describeVolume(m mesh.VolumeMount) string {
	s := m.Name + " at " + m.Target
	if m.ReadOnly {
		s += ", read-only"
	}
	if m.Size > 0 {
		s += ", " + formatSize(m.Size)
	}
	return s
}
