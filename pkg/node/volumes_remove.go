package node

import (
	"context"
	"errors"
	"time"

	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

// This file removes volumes.

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
