package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/mount"
	enginevolume "github.com/docker/docker/api/types/volume"

	"peercompute/pkg/driver"
	"peercompute/pkg/driver/docker/internal/volume"
	"peercompute/pkg/mesh"
)

// This file is how a volume gets into a container. No path of the host does: peerd
// makes a block device of the volume's file, and tells the engine of that as a volume
// of its own, which it mounts for this one container and for as long as it runs.

// labelVolumes lists the IDs of a workload's volumes, in the order of its spec.
const labelVolumes = "peercompute.volumes"

var _ driver.Volumes = (*Driver)(nil)

// mountOptions are those of each volume: nothing on it can be executed, be a device or
// give rights.
const mountOptions = "nosuid,nodev,noexec"

// under reports whether the clean path p is dir or below it.
func under(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }

// engineVolumeName is what a volume is called at the engine while a run has it.
func engineVolumeName(node mesh.PeerID, run mesh.WorkloadID, id mesh.VolumeID) string {
	return containerName(node, run) + "-" + string(id)
}

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

// volumeIDs joins the IDs of volumes for the label.
func volumeIDs(have []driver.Volume) string {
	var ids []string
	for _, v := range have {
		ids = append(ids, string(v.ID))
	}
	return strings.Join(ids, ",")
}

// userWith is the user of a workload: its own, or that of its volumes.
func userWith(id mesh.WorkloadID, e engine, have []driver.Volume) string {
	if len(have) == 0 || e.remaps {
		return userOf(id, e.remaps)
	}
	return strconv.FormatUint(uint64(have[0].User), 10)
}

// hostUser is who the user of a volume is outside of the container.
func hostUser(e engine, v driver.Volume) (uint32, error) {
	if !e.remaps {
		return v.User, nil
	}
	n, err := strconv.ParseUint(userOf("", true), 10, 32)
	if err != nil || e.userBase == 0 {
		return 0, mesh.Errorf(mesh.Unsupported, "the container engine does not tell how it maps users, so there are no volumes here").Because(err)
	}
	return e.userBase + uint32(n), nil
}

// volumesOf finds the volumes that the spec of a workload names, among its owner's.
func (d *Driver) volumesOf(w mesh.Workload) ([]driver.Volume, error) {
	if len(w.Spec.Volumes) == 0 {
		return nil, nil
	}
	if d.volumes == nil || d.ownersVolumes == nil {
		return nil, errNoVolumes()
	}
	all, err := d.ownersVolumes(w.Owner)
	if err != nil {
		return nil, err
	}
	var out []driver.Volume
	for _, m := range w.Spec.Volumes {
		i := slices.IndexFunc(all, func(v driver.Volume) bool { return v.Name == m.Name })
		if i < 0 {
			return nil, mesh.Errorf(mesh.NotFound, "the workload's owner has no volume %s here", m.Name).WithHint("deploy it again to make one")
		}
		if all[i].User != all[0].User {
			return nil, mesh.Errorf(mesh.Internal, "the volumes of one owner belong to several users")
		}
		out = append(out, all[i])
	}
	return out, nil
}

func errNoVolumes() error {
	return mesh.Errorf(mesh.Unsupported, "there are no volumes on this machine")
}

// attached is the volumes of a run as devices, until the engine has mounted them.
type attached struct {
	devices map[string]*volume.Device // by target
}

func (a *attached) close() error {
	var errs []error
	if a != nil {
		for _, dev := range a.devices {
			errs = append(errs, dev.Close())
		}
		a.devices = nil
	}
	return errors.Join(errs...)
}

// attach makes devices of the volumes of a run, and volumes of the engine of those.
func (d *Driver) attach(ctx context.Context, e engine, w mesh.Workload, have []driver.Volume) (_ *attached, err error) {
	if len(have) == 0 {
		return nil, nil
	}
	// An earlier run of it may hold them still.
	if err := errors.Join(d.removeContainer(ctx, containerName(d.node, w.ID)), d.detach(ctx, w.ID)); err != nil {
		return nil, err
	}
	a := &attached{devices: map[string]*volume.Device{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.close(), d.detach(context.WithoutCancel(ctx), w.ID))
		}
	}()
	for i, v := range have {
		if err := d.makeVolume(ctx, e, v); err != nil {
			return nil, err
		}
		dev, err := d.volumes.Attach(ctx, v.ID)
		if mesh.KindOf(err) == mesh.Unavailable {
			return nil, mesh.Errorf(mesh.Unavailable, "volume %s is in use still", v.Name).WithRule("volume.in-use").Because(err)
		}
		if err != nil {
			return nil, err
		}
		a.devices[w.Spec.Volumes[i].Target] = dev
		want := enginevolume.CreateOptions{
			Name: engineVolumeName(d.node, w.ID, v.ID), Driver: "local",
			DriverOpts: map[string]string{"type": "ext4", "device": dev.Path, "o": mountOptions},
			Labels:     map[string]string{labelNode: d.node.String(), labelWorkload: string(w.ID)},
		}
		got, err := d.cli.VolumeCreate(ctx, want)
		if err != nil {
			return nil, d.fail(err, "make a volume")
		}
		if err := checkEngineVolume(want, got); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// checkEngineVolume compares a volume of the engine with what was asked for. One that
// was there before is given back as it is.
func checkEngineVolume(want enginevolume.CreateOptions, got enginevolume.Volume) error {
	if got.Name != want.Name || got.Driver != want.Driver || !maps.Equal(got.Options, want.DriverOpts) || !maps.Equal(got.Labels, want.Labels) {
		return mesh.Errorf(mesh.Unsupported, "the container engine has a volume other than the one asked for (%s)", clip(got.Name, 80)).
			WithHint("remove it: docker volume rm %s", clip(got.Name, 80))
	}
	return nil
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

// adoptVolumes judges the volumes of a container that is to be adopted: they must be
// its owner's, and those that are mounted must be these.
func (d *Driver) adoptVolumes(e engine, got container.InspectResponse) error {
	labels := got.Config.Labels
	if labels[labelVolumes] == "" {
		return nil
	}
	owner, err := mesh.ParsePeerID(labels[labelOwner])
	if err != nil || d.volumes == nil || d.ownersVolumes == nil {
		return errors.Join(errNoVolumes(), err)
	}
	all, err := d.ownersVolumes(owner)
	if err != nil {
		return err
	}
	ids := strings.Split(labels[labelVolumes], ",")
	for _, id := range ids {
		if !slices.ContainsFunc(all, func(v driver.Volume) bool { return string(v.ID) == id }) {
			return mesh.Errorf(mesh.Denied, "volume %s does not belong to the workload's owner", id)
		}
	}
	if !got.State.Running {
		return nil
	}
	want := map[string]mesh.VolumeID{}
	for _, m := range got.Mounts {
		if m.Destination == mesh.SecretsDir {
			continue // see adoptSecrets
		}
		want[m.Destination] = mesh.VolumeID(m.Name[strings.LastIndexByte(m.Name, '-')+1:])
	}
	return checkMounted(e, got, want, d.volumes.On)
}

// detach removes what the engine knows of the volumes of a run that has ended.
func (d *Driver) detach(ctx context.Context, run mesh.WorkloadID) error {
	return d.detachAll(ctx, func(v *enginevolume.Volume) bool { return v.Labels[labelWorkload] == string(run) }, filters.Arg("label", labelWorkload+"="+string(run)))
}

func (d *Driver) detachAll(ctx context.Context, which func(*enginevolume.Volume) bool, more ...filters.KeyValuePair) error {
	if d.volumes == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	args := append([]filters.KeyValuePair{filters.Arg("label", labelNode+"="+d.node.String())}, more...)
	list, err := d.cli.VolumeList(ctx, enginevolume.ListOptions{Filters: filters.NewArgs(args...)})
	if err != nil {
		return d.fail(err, "list its volumes")
	}
	var errs []error
	for _, v := range list.Volumes {
		if v == nil || v.Labels[labelNode] != d.node.String() || !which(v) {
			continue
		}
		if err := d.cli.VolumeRemove(ctx, v.Name, false); err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, d.fail(err, "remove a volume"))
		}
	}
	return errors.Join(errs...)
}

// VolumesReady says why there can be no volumes on this machine.
func (d *Driver) VolumesReady(ctx context.Context) error {
	if d.volumes == nil {
		return errNoVolumes()
	}
	e, err := d.knowEngine(ctx)
	if err != nil {
		return err
	}
	if _, err := hostUser(e, driver.Volume{User: 1}); err != nil {
		return err
	}
	return d.volumes.Available()
}

// MakeVolume makes a volume and takes its space from the disk.
func (d *Driver) MakeVolume(ctx context.Context, v driver.Volume) error {
	if err := d.VolumesReady(ctx); err != nil {
		return err
	}
	e, err := d.knowEngine(ctx)
	if err != nil {
		return err
	}
	return d.makeVolume(ctx, e, v)
}

func (d *Driver) makeVolume(ctx context.Context, e engine, v driver.Volume) error {
	user, err := hostUser(e, v)
	if err != nil {
		return err
	}
	if user == 0 || v.Size < mesh.MinVolume || v.Size > mesh.MaxVolume {
		return mesh.Errorf(mesh.Internal, "volume %s has no user or no size", v.ID)
	}
	if !d.volumes.Has(v.ID) {
		if v.Made {
			return mesh.Errorf(mesh.NotFound, "the file of volume %s is gone from this machine's disk, and an empty one is not put in its place", v.Name).
				WithRule("volume.lost").WithHint("its file was %s; if it cannot be put back, remove the volume and restore a backup: peerctl volume rm %s", v.ID+".img", v.Name)
		}
		if err := d.volumes.Available(); err != nil {
			return err
		}
		if err := d.volumes.Make(ctx, v.ID, v.Size, user); err != nil {
			return err
		}
	}
	if v.Made || d.volumeMade == nil {
		return nil
	}
	return d.volumeMade(ctx, v.ID)
}

// VolumeUsed is how many bytes of a volume are not free.
func (d *Driver) VolumeUsed(_ context.Context, id mesh.VolumeID) (int64, error) {
	if d.volumes == nil {
		return 0, errNoVolumes()
	}
	return d.volumes.Used(id)
}

// VolumeFiles lists the files in which volumes are or were.
func (d *Driver) VolumeFiles(context.Context) (map[mesh.VolumeID]driver.VolumeFile, error) {
	if d.volumes == nil {
		return nil, nil
	}
	sizes, err := d.volumes.Files()
	out := map[mesh.VolumeID]driver.VolumeFile{}
	for id, n := range sizes {
		out[id] = driver.VolumeFile{Path: d.volumes.Path(id), Bytes: n}
	}
	return out, err
}

// RemoveVolume removes a volume with all its files.
func (d *Driver) RemoveVolume(ctx context.Context, id mesh.VolumeID) error {
	if d.volumes == nil {
		return errNoVolumes()
	}
	return d.volumes.Remove(ctx, id)
}

// BackupVolume writes an archive of the files of a volume that is not in use.
func (d *Driver) BackupVolume(ctx context.Context, v driver.Volume, w io.Writer) (driver.Archive, error) {
	if d.volumes == nil {
		return driver.Archive{}, errNoVolumes()
	}
	if !d.volumes.Has(v.ID) {
		return driver.Archive{}, mesh.Errorf(mesh.NotFound, "volume %s has never been used: nothing is in it", v.Name)
	}
	sum, err := d.volumes.Backup(ctx, v.ID, w)
	return driver.Archive(sum), err
}

// RestoreVolume makes a volume and fills it with the files of an archive.
func (d *Driver) RestoreVolume(ctx context.Context, v driver.Volume, r io.Reader) (driver.Archive, error) {
	if err := d.MakeVolume(ctx, v); err != nil {
		return driver.Archive{}, err
	}
	e, err := d.knowEngine(ctx)
	if err != nil {
		return driver.Archive{}, err
	}
	user, err := hostUser(e, v)
	if err != nil {
		return driver.Archive{}, err
	}
	sum, err := d.volumes.Restore(ctx, v.ID, user, r)
	return driver.Archive(sum), err
}
