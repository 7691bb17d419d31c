package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"peercompute/pkg/mesh"
)

const loopMajor = 7

// Device is a volume as a block device. The device goes with the last that uses it:
// this, or a file system that was mounted from it.
type Device struct {
	Path    string // "/dev/loop3"
	f       *os.File
	release func()
}

// Close lets go of the device.
func (d *Device) Close() error {
	err := d.f.Close()
	d.release()
	return err
}

// Number is the device's, as stat tells of what lies on it.
func (d *Device) Number() (uint64, error) {
	var st unix.Stat_t
	err := unix.Fstat(int(d.f.Fd()), &st)
	return uint64(st.Rdev), err
}

// Available says why there can be no volumes here; nil = there can.
func (s *Store) Available() error {
	if _, err := mkfs(); err != nil {
		return err
	}
	f, err := os.OpenFile("/dev/loop-control", os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return noLoop(err)
	}
	f.Close()
	if err := mayMount(); err != nil {
		return mesh.Errorf(mesh.Unsupported, "peerd may not mount file systems, so there are no volumes here").
			WithHint("run peerd as root, or with CAP_SYS_ADMIN").Because(err)
	}
	return nil
}

func noLoop(err error) error {
	return mesh.Errorf(mesh.Unsupported, "peerd may not use loop devices, so there are no volumes here").
		WithHint("run peerd as root, on a kernel with loop devices (modprobe loop)").Because(err)
}

// Attach makes a block device of a volume for one user; mesh.Unavailable while it has one.
func (s *Store) Attach(ctx context.Context, id mesh.VolumeID) (*Device, error) {
	release, err := s.take(ctx, id)
	if err != nil {
		return nil, err
	}
	d, err := attach(s.path(id))
	if err != nil {
		release()
		return nil, err
	}
	d.release = release
	return d, nil
}

// attach makes a loop device of a file. It is undone by the kernel when nobody has the
// device open and nothing is mounted from it.
func attach(path string) (*Device, error) {
	file, err := os.OpenFile(path, os.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open a volume: %w", err)
	}
	defer file.Close()
	if st, err := file.Stat(); err == nil {
		// What the file system zeroed since was given back. A disk that is full now was
		// not when the volume was made, and few of these blocks are missing.
		_ = setAside(file, st.Size())
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, noLoop(err)
	}
	defer control.Close()
	const tries = 64 // others may take the free device first
	for range tries {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, noLoop(err)
		}
		name := "/dev/loop" + strconv.Itoa(n)
		dev, err := os.OpenFile(name, os.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, noLoop(err)
		}
		config := unix.LoopConfig{Fd: uint32(file.Fd())}
		config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
		copy(config.Info.File_name[:len(config.Info.File_name)-1], path)
		err = unix.IoctlLoopConfigure(int(dev.Fd()), &config)
		if err == nil {
			return &Device{Path: name, f: dev, release: func() {}}, nil
		}
		dev.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, noLoop(err)
		}
	}
	return nil, mesh.Errorf(mesh.Overloaded, "no loop device is free")
}

// attached reports whether some loop device is made of the volume, whoever made it.
func (s *Store) attached(id mesh.VolumeID) (bool, error) {
	name, err := s.device(id)
	return name != "", err
}

// device is the loop device that is made of the volume ("loop3"); "" = none.
func (s *Store) device(id mesh.VolumeID) (string, error) {
	devices, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return "", err
	}
	for _, d := range devices {
		if got, ok := s.of(backing(d)); ok && got == id {
			return filepath.Base(filepath.Dir(filepath.Dir(d))), nil
		}
	}
	return "", nil
}

// backing reads which file a device is made of; "" = none.
func backing(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(string(b), "\n")
}

// On is the volume that lies on a device, by the device's number.
func (s *Store) On(device uint64) (mesh.VolumeID, bool) {
	if unix.Major(device) != loopMajor {
		return "", false
	}
	return s.of(backing(fmt.Sprintf("/sys/dev/block/%d:%d/loop/backing_file", loopMajor, unix.Minor(device))))
}
