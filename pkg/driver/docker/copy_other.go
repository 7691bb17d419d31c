//go:build !linux

package docker

import (
	"context"

	"peercompute/pkg/mesh"
)

// CopyMain copies nothing here: containers run in a virtual machine.
func CopyMain(context.Context) error {
	return mesh.Errorf(mesh.Unsupported, "files are copied into and out of containers on Linux only")
}
