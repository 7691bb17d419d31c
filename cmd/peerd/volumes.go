package main

import (
	"context"

	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
	"peercompute/pkg/node"
)

// ownersVolumes lists the volumes of a workload's owner, who may have changed its key
// since the workload was started.
func (rt *runtimes) ownersVolumes(owner mesh.PeerID) ([]driver.Volume, error) {
	return node.OwnersVolumes(rt.member.Load().Store, rt.ownerNow(owner))
}

func (rt *runtimes) volumeMade(ctx context.Context, id mesh.VolumeID) error {
	return node.VolumeMade(ctx, rt.member.Load().Store, id)
}
