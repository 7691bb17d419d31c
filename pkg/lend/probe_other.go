//go:build !linux

package lend

import (
	"time"

	"peercompute/pkg/mesh"
)

// Look fails: only Linux is measured.
func Look(time.Time) (Machine, error) {
	return Machine{}, mesh.Errorf(mesh.Unsupported, "whether this machine is idle can be measured on Linux only").
		WithHint("give windows of time instead, such as --when 22:00-07:00")
}

// ProcessTime is not known here.
func ProcessTime(int) time.Duration { return 0 }

// Memory fails: only Linux is measured.
func Memory() (total, available int64, err error) {
	return 0, 0, mesh.Errorf(mesh.Unsupported, "the memory that is available can be measured on Linux only")
}
