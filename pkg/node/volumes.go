package node

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"peercompute/pkg/admission"
	"peercompute/pkg/audit"
	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
	"peercompute/pkg/wire"
)

// This file is what is known here of volumes. One is recorded in the transaction that
// accepts the first workload which names it; the runtime makes it when that starts. It
// stays until its owner removes it, or is removed.

// volumeState is how a volume stands.
type volumeState string

const (
	volumeReady     volumeState = "ready"
	volumeRestoring volumeState = "restoring" // it is being filled, and nobody may use it yet
	volumeRemoving  volumeState = "removing"
)

const (
	maxVolumes     = 64 // of one owner
	volumeTend     = time.Minute
	volumeTryAgain = time.Second // while something is still to be removed
)

// volumeRecord is a volume in the store.
type volumeRecord struct {
	ID      mesh.VolumeID `json:"id"`
	Name    string        `json:"name"`
	Owner   mesh.PeerID   `json:"owner"` // its key as of now
	Size    int64         `json:"size"`
	User    uint32        `json:"user"` // of its files; the same for all volumes of an owner
	State   volumeState   `json:"state"`
	Made    bool          `json:"made,omitempty"` // its file was there once
	Created time.Time     `json:"created"`
}

func (v volumeRecord) driver() driver.Volume {
	return driver.Volume{ID: v.ID, Name: v.Name, Size: v.Size, User: v.User, Made: v.Made}
}

func putVolume(tx *store.Tx, v volumeRecord) error {
	return tx.PutJSON(store.Volumes, []byte(v.ID), v)
}

func getVolume(tx *store.Tx, id mesh.VolumeID) (v volumeRecord, ok bool, err error) {
	ok, err = tx.GetJSON(store.Volumes, []byte(id), &v)
	return v, ok, err
}

// volumesIn lists the volumes for which which holds, by name.
func volumesIn(tx *store.Tx, which func(volumeRecord) bool) (out []volumeRecord, err error) {
	err = tx.Each(store.Volumes, nil, func(k, _ []byte) (bool, error) {
		var v volumeRecord
		_, err := tx.GetJSON(store.Volumes, k, &v)
		if err == nil && which(v) {
			out = append(out, v)
		}
		return err == nil, err
	})
	slices.SortFunc(out, func(a, b volumeRecord) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), a.Created.Compare(b.Created))
	})
	return out, err
}

// namedVolume is an owner's volume of a name that is not being removed.
func namedVolume(tx *store.Tx, owner mesh.PeerID, name string) (v volumeRecord, ok bool, err error) {
	all, err := volumesIn(tx, func(v volumeRecord) bool {
		return v.Owner == owner && v.Name == name && v.State != volumeRemoving
	})
	if len(all) == 0 {
		return v, false, err
	}
	return all[0], true, err
}

// OwnersVolumes lists the volumes of an owner that workloads may use.
func OwnersVolumes(s *store.Store, owner mesh.PeerID) (out []driver.Volume, err error) {
	err = s.View(func(tx *store.Tx) error {
		all, err := volumesIn(tx, func(v volumeRecord) bool { return v.Owner == owner && v.State == volumeReady })
		for _, v := range all {
			out = append(out, v.driver())
		}
		return err
	})
	return out, err
}

// VolumeMade notes that the file of a volume is there, so that it is never made anew over
// one that was lost.
func VolumeMade(ctx context.Context, s *store.Store, id mesh.VolumeID) error {
	return s.Update(ctx, func(tx *store.Tx) error {
		v, ok, err := getVolume(tx, id)
		if err != nil || !ok || v.Made {
			return err
		}
		v.Made = true
		return putVolume(tx, v)
	})
}

// addVolumes counts volumes as disk that is in use, until their files are gone.
func addVolumes(tx *store.Tx, who mesh.PeerID, u *admission.Usage) error {
	_, err := volumesIn(tx, func(v volumeRecord) bool {
		u.Host.Resources.Disk += v.Size
		if v.Owner == who {
			u.Peer.Resources.Disk += v.Size
		}
		return false
	})
	return err
}

func (n *Node) noteVolume(tx *store.Tx, who mesh.PeerID, action string, v volumeRecord, detail string) error {
	if detail != "" {
		detail = ": " + detail
	}
	e := audit.Entry{Time: n.m.Now(), Actor: n.actor(who), Action: action, Subject: string(v.ID), Outcome: audit.Done, Detail: v.Name + detail}
	if who != n.m.Key.ID {
		e.Rule = "grant"
	}
	if who != v.Owner {
		e.Detail += ", of " + n.actor(v.Owner)
	}
	return audit.Append(tx, e)
}

// ownedVolume reads a volume that who may see: its own, or any for this node itself.
// To anyone else it does not exist.
func (n *Node) ownedVolume(tx *store.Tx, who mesh.PeerID, id mesh.VolumeID) (volumeRecord, error) {
	v, ok, err := getVolume(tx, id)
	if err == nil && (!ok || v.Owner != who && who != n.m.Key.ID) {
		err = mesh.Errorf(mesh.NotFound, "there is no volume %s here", id).WithHint("list them with: peerctl volume ls")
	}
	if err != nil {
		return volumeRecord{}, err
	}
	return v, nil
}

// heldVolume is a volume with the names of the workloads that have it.
type heldVolume struct {
	volumeRecord
	by []string
}

// volumes lists who's volumes; for this node itself, everybody's.
func (n *Node) volumes(who mesh.PeerID) (out []heldVolume, err error) {
	err = n.m.Store.View(func(tx *store.Tx) error {
		all, err := volumesIn(tx, func(v volumeRecord) bool { return v.Owner == who || who == n.m.Key.ID })
		for _, v := range all {
			h := heldVolume{volumeRecord: v}
			if v.State != volumeRemoving {
				users, err := volumeUsers(tx, v.Owner, v.Name)
				if err != nil {
					return err
				}
				for _, r := range users {
					h.by = append(h.by, r.Workload.Spec.Name)
				}
			}
			out = append(out, h)
		}
		return err
	})
	return out, err
}

func (n *Node) showVolume(ctx context.Context, v heldVolume) wire.Volume {
	return wire.Volume{
		ID: v.ID, Name: v.Name, Size: v.Size, State: string(v.State), Created: v.Created.UnixMilli(), Used: v.by, Filled: n.filled(ctx, v.ID),
	}
}

// filled is how many bytes of a volume are not free; 0 if that cannot be said.
func (n *Node) filled(ctx context.Context, id mesh.VolumeID) int64 {
	d, err := n.volumeDriver()
	if err != nil {
		return 0
	}
	used, err := d.VolumeUsed(ctx, id)
	if err != nil {
		n.log.Debug("cannot measure a volume", "volume", id, "err", err)
	}
	return used
}

// measureVolumes adds what a workload's volumes hold to what it uses.
func (n *Node) measureVolumes(ctx context.Context, w mesh.Workload, st *mesh.Stats) {
	if len(w.Spec.Volumes) == 0 {
		return
	}
	all, err := OwnersVolumes(n.m.Store, w.Owner)
	if err != nil {
		n.log.Warn("cannot list the volumes of a workload", "workload", w.ID, "err", err)
	}
	for _, v := range all {
		if slices.ContainsFunc(w.Spec.Volumes, func(m mesh.VolumeMount) bool { return m.Name == v.Name }) {
			st.Volumes += n.filled(ctx, v.ID)
			st.VolumesSize += v.Size
		}
	}
}

// rekeyVolumes moves volumes to the new key of their owner.
func rekeyVolumes(tx *store.Tx, from, to mesh.PeerID) error {
	theirs, err := volumesIn(tx, func(v volumeRecord) bool { return v.Owner == from })
	for _, v := range theirs {
		v.Owner = to
		if err == nil {
			err = putVolume(tx, v)
		}
	}
	return err
}

// volumeDriver is the driver that has volumes; Unsupported if none does.
func (n *Node) volumeDriver() (driver.Volumes, error) { return ofContainers[driver.Volumes](n) }
