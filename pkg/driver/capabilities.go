package driver

import (
	"fmt"

	"peercompute/pkg/mesh"
)

// Capabilities names what a job gets of the world, as its receipt says it. What is
// not named it does not get.
func Capabilities(s mesh.Spec) []string {
	caps := []string{"clock:virtual", "random:seeded"}
	if s.Clock == mesh.ClockWall {
		caps = append(caps, "clock:wall")
	}
	if s.Resources.Disk > 0 {
		caps = append(caps, fmt.Sprintf("scratch:%d", s.Resources.Disk))
	}
	for _, h := range s.Hosts {
		caps = append(caps, "http:"+h)
	}
	return caps
}
