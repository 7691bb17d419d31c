package admission

import (
	"peercompute/pkg/mesh"
	"peercompute/pkg/trust"
)

// DecidePush judges whether a peer may leave an image here: id is the image ID, size
// its bytes. What images take counts as disk beside what workloads do.
func DecidePush(p Policy, g trust.Grant, id string, size int64, u Usage) Decision {
	return verdict(ExplainPush(p, g, id, size, u), "grant", "within the grant and what this machine lends")
}

// ExplainPush is every rule that DecidePush asks, in its order.
func ExplainPush(p Policy, g trust.Grant, id string, bytes int64, u Usage) []Row {
	return tidy([]Row{
		permission("grant.deploy", "deploy here", "deploy", g, trust.Deploy),
		open("host.paused", p.Paused),
		open("host.schedule", p.Schedule),
		runs(p, mesh.Spec{Runtime: mesh.Container}),
		pushed(g, mesh.PushedRef(g.First(), id), id),
		amount("grant.disk", "disk", "--disk", bytes, u.Peer.Resources.Disk, g.Quota.Resources.Disk, size),
		amount("host.disk", "disk", "", bytes, u.Host.Resources.Disk, p.Resources.Disk, size),
	})
}
