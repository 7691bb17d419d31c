package volume

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"peercompute/pkg/mesh"
)

// Used is how many bytes of a volume are not free. Of one that is mounted its file system
// is asked, through a mount of its own that no path leads to; of another the file is read.
func (s *Store) Used(id mesh.VolumeID) (int64, error) {
	if _, err := mesh.ParseVolumeID(string(id)); err != nil {
		return 0, err
	}
	st, err := os.Stat(s.path(id))
	if err != nil {
		return 0, fmt.Errorf("cannot find a volume: %w", err)
	}
	name, err := s.device(id)
	if err != nil {
		return 0, err
	}
	var free int64
	if name != "" {
		free, err = s.freeOn(name, id)
	}
	if name == "" || err != nil { // it was let go of meanwhile
		free, err = freeIn(s.path(id))
	}
	return max(st.Size()-max(free, 0), 0), err
}

// freeOn asks the file system of a volume on its device, which is held meanwhile: another
// file's could take its number otherwise.
func (s *Store) freeOn(name string, id mesh.VolumeID) (int64, error) {
	dev, err := os.OpenFile(filepath.Join("/dev", name), os.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer dev.Close()
	if got, ok := s.of(backing(filepath.Join("/sys/block", name, "loop/backing_file"))); !ok || got != id {
		return 0, errBusy()
	}
	mount, err := mountDetached(dev.Name(), readOnly)
	if err != nil {
		return 0, fmt.Errorf("cannot look at a volume: %w", err)
	}
	defer unix.Close(mount)
	var st unix.Statfs_t
	if err := unix.Fstatfs(mount, &st); err != nil {
		return 0, err
	}
	return int64(st.Bfree) * st.Bsize, nil
}

// freeIn reads what the superblock of an ext4 file system says, which is true of one that
// was unmounted.
func freeIn(file string) (int64, error) {
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	b := make([]byte, 1024)
	if _, err := f.ReadAt(b, 1024); err != nil {
		return 0, err
	}
	const magic = 0xef53
	size := binary.LittleEndian.Uint32(b[0x18:]) // of a block: 1 KiB times two to the power of it
	if binary.LittleEndian.Uint16(b[0x38:]) != magic || size > 6 {
		return 0, fmt.Errorf("a volume holds no ext4 file system")
	}
	blocks := int64(binary.LittleEndian.Uint32(b[0x0c:])) | int64(binary.LittleEndian.Uint32(b[0x158:])&0xffff)<<32
	return blocks << (10 + size), nil
}
