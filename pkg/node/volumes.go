package node

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"peercompute/pkg/admission"
	"peercompute/pkg/audit"
	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
	"peercompute/pkg/supervisor"
	"peercompute/pkg/trust"
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

// removeVolume marks a volume for removal that no workload has.
func (n *Node) removeVolume(who mesh.PeerID, id mesh.VolumeID) change {
	return change{
		commit: func(tx *store.Tx) error {
			v, err := n.ownedVolume(tx, who, id)
			if err != nil || v.State == volumeRemoving {
				return err
			}
			if v.State == volumeRestoring {
				return mesh.Errorf(mesh.Conflict, "volume %s is being restored", v.Name).WithRule("volume.restoring").WithHint("interrupt that, and it is removed by itself")
			}
			users, err := volumeUsers(tx, v.Owner, v.Name)
			if err != nil {
				return err
			}
			if len(users) > 0 {
				name := users[0].Workload.Spec.Name
				return mesh.Errorf(mesh.Conflict, "volume %s belongs to workload %s", v.Name, name).WithRule("volume.in-use").
					WithHint("remove that first: peerctl rm %s", name)
			}
			v.State = volumeRemoving
			if err := putVolume(tx, v); err != nil {
				return err
			}
			return n.noteVolume(tx, who, "remove-volume", v, "")
		},
		after: func() { signal(n.volumeWake) },
	}
}

// dropVolumes marks all volumes of a peer for removal that was removed itself.
func (n *Node) dropVolumes(ctx context.Context, p mesh.PeerID) error {
	err := n.m.Store.Update(ctx, func(tx *store.Tx) error {
		theirs, err := volumesIn(tx, func(v volumeRecord) bool { return v.Owner == p && v.State != volumeRemoving })
		for _, v := range theirs {
			v.State = volumeRemoving
			if err == nil {
				err = putVolume(tx, v)
			}
			if err == nil {
				err = n.noteVolume(tx, n.m.Key.ID, "remove-volume", v, "its owner was removed")
			}
		}
		return err
	})
	signal(n.volumeWake)
	return err
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

// restoring are the volumes that are just being filled, and carrying whose files are on
// their way: one transfer of each owner at a time.
type volumeWork struct {
	mu       sync.Mutex
	filling  map[mesh.VolumeID]bool
	carrying map[mesh.PeerID]bool
}

// carry begins a transfer of owner's.
func (w *volumeWork) carry(owner mesh.PeerID) (done func(), err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.carrying == nil {
		w.carrying, w.filling = map[mesh.PeerID]bool{}, map[mesh.VolumeID]bool{}
	}
	if w.carrying[owner] {
		return nil, mesh.Errorf(mesh.Overloaded, "another volume of the same owner is just being backed up or restored").
			WithRule("volume.one-at-a-time").WithHint("try again once that is done")
	}
	w.carrying[owner] = true
	return sync.OnceFunc(func() {
		w.mu.Lock()
		delete(w.carrying, owner)
		w.mu.Unlock()
	}), nil
}

// fill begins to fill a volume.
func (w *volumeWork) fill(id mesh.VolumeID) (done func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.filling[id] = true
	return sync.OnceFunc(func() {
		w.mu.Lock()
		delete(w.filling, id)
		w.mu.Unlock()
	})
}

func (w *volumeWork) fills(id mesh.VolumeID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.filling[id]
}

// keepVolumes removes what is to be removed until ctx ends.
func (n *Node) keepVolumes(ctx context.Context) error {
	for {
		again := volumeTend
		left, err := n.tendVolumes(ctx)
		if err != nil && ctx.Err() == nil {
			n.log.Error("cannot tend the volumes", "err", err)
		}
		if left {
			again = volumeTryAgain
		}
		t := time.NewTimer(again)
		select {
		case <-n.volumeWake:
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
		if ctx.Err() != nil {
			return nil
		}
	}
}

// tendVolumes reports whether something could not be removed yet.
func (n *Node) tendVolumes(ctx context.Context) (left bool, err error) {
	d, err := n.volumeDriver()
	if err != nil {
		return false, nil
	}
	var todo []volumeRecord
	err = n.m.Store.View(func(tx *store.Tx) error {
		// A crash cut the filling of a volume short: half of it is of no use.
		todo, err = volumesIn(tx, func(v volumeRecord) bool {
			return v.State == volumeRemoving || v.State == volumeRestoring && !n.volumeWork.fills(v.ID)
		})
		return err
	})
	for _, v := range todo {
		if rerr := d.RemoveVolume(ctx, v.ID); rerr != nil {
			left = true
			if mesh.KindOf(rerr) != mesh.Unavailable {
				n.log.Warn("cannot remove a volume yet", "volume", v.ID, "err", rerr)
			}
			continue
		}
		err = errors.Join(err, n.m.Store.Update(ctx, func(tx *store.Tx) error { return tx.Delete(store.Volumes, []byte(v.ID)) }))
	}
	return left, err
}
