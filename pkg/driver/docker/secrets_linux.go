package docker

import (
	"errors"

	"golang.org/x/sys/unix"
)

// isMemory reports whether a directory is on a file system in memory.
func isMemory(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && (int64(st.Type) == unix.TMPFS_MAGIC || int64(st.Type) == unix.RAMFS_MAGIC)
}

// ownDir refuses what is not a directory of ours that nobody else may look into.
func ownDir(dir string) error {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Mode&0o777 != 0o700 || int(st.Uid) != unix.Geteuid() {
		return errors.New(dir + " is another's")
	}
	return nil
}

// sameDirectory reports whether a directory of a container is one of this machine.
func sameDirectory(pid int, container, inside, outside string) (bool, error) {
	root, err := openRoot(pid, container)
	if err != nil {
		return false, err
	}
	defer unix.Close(root)
	fd, err := openAt(root, inside, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	var a, b unix.Stat_t
	if err := errors.Join(unix.Fstat(fd, &a), unix.Lstat(outside, &b)); err != nil {
		return false, err
	}
	return a.Dev == b.Dev && a.Ino == b.Ino, nil
}
