package admission

import (
	"peercompute/pkg/mesh"
	"peercompute/pkg/trust"
)

// DecideImage judges whether a peer may run an image here, without asking whether
// there is room for it.
func DecideImage(g trust.Grant, s mesh.Spec) Decision {
	return verdict(tidy([]Row{permission("grant.deploy", "deploy here", "deploy", g, trust.Deploy), images(g, s)}), "grant.images", "within the grant")
}
