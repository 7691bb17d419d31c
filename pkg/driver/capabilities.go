package driver

import "peercompute/pkg/mesh"

// Capabilities names what a job gets of the world, as its receipt says it. What is
// not named it does not get.
func Capabilities(mesh.Spec) []string {
	return []string{"clock:virtual", "random:seeded"}
}
