package admission

import "peercompute/pkg/trust"

// DecideVolume judges whether a peer may have one more volume, of so many bytes.
func DecideVolume(p Policy, g trust.Grant, bytes int64, u Usage) Decision {
	return verdict(tidy([]Row{
		permission("grant.deploy", "deploy here", "deploy", g, trust.Deploy),
		open("host.paused", p.Paused),
		open("host.schedule", p.Schedule),
		amount("grant.disk", "disk", "--disk", bytes, u.Peer.Resources.Disk, g.Quota.Resources.Disk, size),
		amount("host.disk", "disk", "", bytes, u.Host.Resources.Disk, p.Resources.Disk, size),
	}), "grant", "within the grant and what this machine lends")
}
