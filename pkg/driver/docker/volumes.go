package docker

import (
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/docker/api/types/container"

	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
)

// This file is how a volume gets into a container. No path of the host does: peerd
// makes a block device of the volume's file, and tells the engine of that as a volume
// of its own, which it mounts for this one container and for as long as it runs.

// labelVolumes lists the IDs of a workload's volumes, in the order of its spec.
const labelVolumes = "peercompute.volumes"

var _ driver.Volumes = (*Driver)(nil)

// engineVolumeName is what a volume is called at the engine while a run has it.
func engineVolumeName(node mesh.PeerID, run mesh.WorkloadID, id mesh.VolumeID) string {
	return containerName(node, run) + "-" + string(id)
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
