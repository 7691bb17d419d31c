//go:build unix

package member

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"peercompute/pkg/mesh"
)

// lockHome makes this process the only one that uses home. The lock goes with
// the process, however it ends.
func lockHome(home string) (unlock func() error, err error) {
	f, err := os.OpenFile(filepath.Join(home, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, mesh.Errorf(mesh.Conflict, "another process uses the home %s", home).
			WithHint("peerd runs already; or give this one a home of its own with --home").Because(err)
	}
	return func() error {
		// A child that is just being started may hold the file open too, for a moment.
		return errors.Join(unix.Flock(int(f.Fd()), unix.LOCK_UN), f.Close())
	}, nil
}
