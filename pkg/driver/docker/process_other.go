//go:build !linux

package docker

import (
	"log/slog"
	"runtime"

	"peercompute/pkg/mesh"
)

// process cannot be had here: containers run in a virtual machine.
type process struct{}

func findProcess(int, string) (*process, error) {
	return nil, mesh.Errorf(mesh.Unsupported, "programs can be run in containers on Linux peers only, and this is %s", runtime.GOOS)
}

func (*process) close()                   {}
func (*process) confined() error          { return nil }
func (*process) killSession(*slog.Logger) {}
