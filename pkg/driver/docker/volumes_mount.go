package docker

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"

	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
)

// This file is the mounts of a container, and that there are no others.

// mountOptions are those of each volume: nothing on it can be executed, be a device or
// give rights.
const mountOptions = "nosuid,nodev,noexec"

// under reports whether the clean path p is dir or below it.
func under(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }

// mountsOf is the mounts of a workload: a volume for each that its spec names, and
// nothing else.
func mountsOf(node mesh.PeerID, w mesh.Workload, have []driver.Volume) ([]mount.Mount, error) {
	if len(have) != len(w.Spec.Volumes) {
		return nil, mesh.Errorf(mesh.Internal, "a workload gets the volumes that its spec names")
	}
	if len(have) > 0 {
		if err := (mesh.Spec{Name: "x", Runtime: mesh.Container, Image: "x", Volumes: w.Spec.Volumes}).Validate(); err != nil {
			return nil, err
		}
	}
	var out []mount.Mount
	for i, m := range w.Spec.Volumes {
		if _, err := mesh.ParseVolumeID(string(have[i].ID)); err != nil {
			return nil, err
		}
		if have[i].Name != m.Name || have[i].User == 0 {
			return nil, mesh.Errorf(mesh.Internal, "volume %s is not the one that the spec names", have[i].ID)
		}
		out = append(out, mount.Mount{
			Type: mount.TypeVolume, Source: engineVolumeName(node, w.ID, have[i].ID), Target: m.Target, ReadOnly: m.ReadOnly,
			VolumeOptions: &mount.VolumeOptions{NoCopy: true}, // or the engine would fill it, as root
		})
	}
	return out, nil
}

// checkMounts names how the mounts of a container differ from what was asked for.
func checkMounts(want []mount.Mount, got []container.MountPoint) []string {
	var bad []string
	left := slices.Clone(want)
	for _, g := range got {
		i := slices.IndexFunc(left, func(w mount.Mount) bool { return w.Target == g.Destination })
		if i < 0 || !isVolume(g) || g.Name != left[i].Source || g.RW == left[i].ReadOnly {
			bad = append(bad, "mount "+g.Destination)
			continue
		}
		left = slices.Delete(left, i, i+1)
	}
	for _, w := range left {
		bad = append(bad, "no mount "+w.Target)
	}
	return bad
}

// isVolume reports whether a mount is a volume of the engine's own kind.
func isVolume(m container.MountPoint) bool {
	return m.Type == mount.TypeVolume && m.Driver == "local" && (m.Propagation == "" || m.Propagation == mount.PropagationPrivate)
}

// plain is a mount as it is compared: engines fill in what says nothing.
func plain(m mount.Mount) mount.Mount {
	if o := m.VolumeOptions; o != nil {
		c := *o
		if c.DriverConfig != nil && c.DriverConfig.Name == "" && len(c.DriverConfig.Options) == 0 {
			c.DriverConfig = nil
		}
		if len(c.Labels) == 0 {
			c.Labels = nil
		}
		m.VolumeOptions = &c
	}
	return m
}

func plainMounts(ms []mount.Mount) (out []mount.Mount) {
	for _, m := range ms {
		out = append(out, plain(m))
	}
	return out
}

// onlyVolumes reports whether a container has no mounts but the volumes that its labels
// tell of, under the names that only they have.
func onlyVolumes(got container.InspectResponse) bool {
	h, labels := got.HostConfig, got.Config.Labels
	if len(h.Binds) > 0 || len(h.VolumesFrom) > 0 {
		return false
	}
	node, err := mesh.ParsePeerID(labels[labelNode])
	if len(h.Mounts) == 0 && len(got.Mounts) == 0 {
		return labels[labelVolumes] == "" && labels[labelSecrets] == ""
	}
	if err != nil {
		return false
	}
	names := map[string]bool{}
	secrets := secretsMount(node, mesh.WorkloadID(labels[labelWorkload]))
	if labels[labelSecrets] != "" {
		names[secrets.Source] = true
	}
	for id := range strings.SplitSeq(labels[labelVolumes], ",") {
		if id == "" && labels[labelVolumes] == "" {
			break
		}
		v, err := mesh.ParseVolumeID(id)
		if err != nil {
			return false
		}
		names[engineVolumeName(node, mesh.WorkloadID(labels[labelWorkload]), v)] = true
	}
	if len(names) != len(h.Mounts) || len(names) != len(got.Mounts) {
		return false
	}
	for _, m := range h.Mounts {
		if m.Source == secrets.Source {
			if m.Type != secrets.Type || m.Target != secrets.Target || !m.ReadOnly || !names[m.Source] {
				return false
			}
			continue
		}
		if m.Type != mount.TypeVolume || !names[m.Source] || (mesh.VolumeMount{Name: "x", Target: m.Target}).Problem() != "" {
			return false
		}
	}
	for _, m := range got.Mounts {
		if !isVolume(m) || !names[m.Name] {
			return false
		}
		delete(names, m.Name) // each once
	}
	return true
}

// checkMounted looks at what is really mounted in a container that runs: on each target
// the device of the volume that belongs there. on is the volume of a device.
func checkMounted(e engine, got container.InspectResponse, want map[string]mesh.VolumeID, on func(device uint64) (mesh.VolumeID, bool)) error {
	if len(want) == 0 || e.sandboxes {
		return nil // the kernel that a sandbox's programs see is not this one
	}
	targets := slices.Sorted(maps.Keys(want))
	devices, err := devicesOf(got.State.Pid, got.ID, targets)
	if errors.Is(err, errOtherProcess) {
		return nil // it has ended already
	}
	if err != nil {
		return fmt.Errorf("cannot look at the volumes of a container: %w", err)
	}
	for i, target := range targets {
		if id, ok := on(devices[i]); !ok || id != want[target] {
			return mesh.Errorf(mesh.Unsupported, "the container engine mounted something other than the volume at %s", target)
		}
	}
	return nil
}

// wantMounted is which volume belongs where.
func wantMounted(w mesh.Workload, have []driver.Volume) map[string]mesh.VolumeID {
	out := map[string]mesh.VolumeID{}
	for i, v := range have {
		out[w.Spec.Volumes[i].Target] = v.ID
	}
	return out
}
