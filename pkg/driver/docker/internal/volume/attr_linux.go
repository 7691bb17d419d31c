package volume

import (
	"errors"
	"io/fs"
	"syscall"
)

// noWait keeps the opening of a file from waiting, whatever it turns out to be.
const noWait = syscall.O_NONBLOCK

// linked is the inode of a file, and whether it has several names.
func linked(info fs.FileInfo) (inode uint64, several bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return st.Ino, st.Nlink > 1
}

// full reports whether a file system has no room for more.
func full(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }
