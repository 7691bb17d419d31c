//go:build !linux

package volume

import (
	"context"
	"os"

	"peercompute/pkg/mesh"
)

func errUnsupported() error {
	return mesh.Errorf(mesh.Unsupported, "there are volumes on Linux only")
}

// Device is a volume as a block device.
type Device struct{ Path string }

// Close lets go of the device.
func (d *Device) Close() error { return nil }

// Number is the device's, as stat tells of what lies on it.
func (d *Device) Number() (uint64, error) { return 0, errUnsupported() }

// Available says why there can be no volumes here.
func (s *Store) Available() error { return errUnsupported() }

// Attach makes a block device of a volume for one user.
func (s *Store) Attach(context.Context, mesh.VolumeID) (*Device, error) {
	return nil, errUnsupported()
}

// On is the volume that lies on a device, by the device's number.
func (s *Store) On(uint64) (mesh.VolumeID, bool) { return "", false }

// Used is how many bytes of a volume are not free.
func (s *Store) Used(mesh.VolumeID) (int64, error) { return 0, errUnsupported() }

func (s *Store) attached(mesh.VolumeID) (bool, error) { return false, nil }

func (s *Store) format(context.Context, string, int64, uint32) error { return errUnsupported() }

type access int

const (
	readOnly access = iota
	writable
)

type tree struct{ root *os.Root }

func open(string, access) (*tree, error) { return nil, errUnsupported() }
func (t *tree) flush() error             { return errUnsupported() }
func (t *tree) Close() error             { return nil }
