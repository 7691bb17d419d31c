package node

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"

	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
	"peercompute/pkg/supervisor"
	"peercompute/pkg/trust"
)

// This file is how workloads come by their volumes: those that there are, or new ones.

// volumeUsers names the workloads that have a volume of owner's, running or not. One
// that is being removed has it still.
func volumeUsers(tx *store.Tx, owner mesh.PeerID, name string) (out []supervisor.Record, err error) {
	err = supervisor.Each(tx, func(r supervisor.Record) error {
		if r.Workload.Owner == owner && slices.ContainsFunc(r.Specs(), func(s mesh.Spec) bool {
			return slices.ContainsFunc(s.Volumes, func(m mesh.VolumeMount) bool { return m.Name == name })
		}) {
			out = append(out, r)
		}
		return nil
	})
	return out, err
}

// newVolumes is how many bytes the volumes take that a spec of who's would have made.
func newVolumes(tx *store.Tx, who mesh.PeerID, s mesh.Spec) (bytes int64, err error) {
	for _, m := range s.Volumes {
		_, ok, err := namedVolume(tx, who, m.Name)
		if err != nil {
			return 0, err
		}
		if !ok {
			bytes += sizeOf(m)
		}
	}
	return bytes, nil
}

func sizeOf(m mesh.VolumeMount) int64 { return cmp.Or(m.Size, mesh.DefaultVolume) }

// judgeVolume says why a spec of who's cannot have a volume. self is its workload, which
// may have it already. ok is false if it is to be made.
func judgeVolume(tx *store.Tx, who mesh.PeerID, m mesh.VolumeMount, self mesh.WorkloadID) (v volumeRecord, ok bool, err error) {
	v, ok, err = namedVolume(tx, who, m.Name)
	if err != nil || !ok {
		return v, ok, err
	}
	if v.State != volumeReady {
		return v, true, mesh.Errorf(mesh.Conflict, "volume %s is being restored", m.Name).WithRule("volume.restoring").WithHint("try again once it is there: peerctl volume ls")
	}
	if m.Size != 0 && m.Size != v.Size {
		return v, true, mesh.Errorf(mesh.Conflict, "volume %s has %d MiB, not %d: its size is fixed", m.Name, v.Size>>20, m.Size>>20).WithRule("volume.size").
			WithHint("leave size= out, or bring its files to a larger one: peerctl volume backup %s, then volume restore NAME --size", m.Name)
	}
	users, err := volumeUsers(tx, who, m.Name)
	for _, r := range users {
		if r.Workload.ID != self && r.Desired != supervisor.Remove {
			return v, true, mesh.Errorf(mesh.Conflict, "volume %s belongs to workload %s, and one workload at a time has a volume", m.Name, r.Workload.Spec.Name).
				WithRule("volume.in-use").WithHint("remove that first, its volumes stay: peerctl rm %s", r.Workload.Spec.Name)
		}
	}
	return v, true, err
}

// missingVolumes judges the volumes that a spec of who's names, and lists those that
// are to be made for it.
func missingVolumes(tx *store.Tx, who mesh.PeerID, s mesh.Spec, self mesh.WorkloadID) (missing []mesh.VolumeMount, err error) {
	for _, m := range s.Volumes {
		_, ok, err := judgeVolume(tx, who, m, self)
		if err != nil {
			return nil, err
		}
		if !ok {
			missing = append(missing, m)
		}
	}
	return missing, roomForVolumes(tx, who, len(missing))
}

// roomForVolumes requires that who may have so many more.
func roomForVolumes(tx *store.Tx, who mesh.PeerID, more int) error {
	if more == 0 {
		return nil
	}
	mine, err := volumesIn(tx, func(v volumeRecord) bool { return v.Owner == who })
	if err == nil && len(mine)+more > maxVolumes {
		err = errManyVolumes()
	}
	return err
}

func errManyVolumes() error {
	return mesh.Errorf(mesh.Quota, "more than %d volumes of one owner", maxVolumes).WithRule("host.volumes").WithHint("remove what is not needed: peerctl volume rm")
}

// claimVolumes records the volumes of an accepted spec. run names the request.
func (n *Node) claimVolumes(tx *store.Tx, who mesh.PeerID, g trust.Grant, s mesh.Spec, self, run mesh.WorkloadID) error {
	missing, err := missingVolumes(tx, who, s, self)
	if err != nil {
		return err
	}
	for _, m := range missing {
		if _, err := n.addVolume(tx, who, g, m.Name, sizeOf(m), run, volumeReady); err != nil {
			return err
		}
	}
	return nil
}

// addVolume records a new volume.
func (n *Node) addVolume(tx *store.Tx, who mesh.PeerID, g trust.Grant, name string, size int64, run mesh.WorkloadID, st volumeState) (volumeRecord, error) {
	v := volumeRecord{
		ID: mesh.NewVolumeID(run, name), Name: name, Owner: who, Size: size, User: volumeUser(n.grantOf(who, g).First()), State: st, Created: n.m.Now().UTC(),
	}
	mine, err := volumesIn(tx, func(o volumeRecord) bool { return o.Owner == who })
	if err != nil {
		return v, err
	}
	if len(mine) > 0 { // its owner's key may have changed since
		v.User = mine[0].User
	}
	if err := putVolume(tx, v); err != nil {
		return v, err
	}
	return v, n.noteVolume(tx, who, "make-volume", v, fmt.Sprintf("%d MiB", size>>20))
}

// volumeUser is the user whose files are on an owner's volumes. It is not that of a
// workload, because files outlive workloads. The range is theirs.
func volumeUser(owner mesh.PeerID) uint32 {
	sum := sha256.Sum256([]byte("peercompute/volumes/1\x00" + owner))
	return 0x70000000 + binary.BigEndian.Uint32(sum[:])&0x07ffffff
}

// volumesReady refuses a spec whose volumes this machine could not make.
func (n *Node) volumesReady(ctx context.Context, s mesh.Spec) error {
	if len(s.Volumes) == 0 {
		return nil
	}
	d, err := n.volumeDriver()
	if err != nil {
		return err
	}
	if err := d.VolumesReady(ctx); err != nil {
		e := *mesh.AsError(err)
		return e.WithRule("host.volumes")
	}
	return nil
}
