//go:build unix

package archive

import (
	"io/fs"
	"os"
	"syscall"
)

// readFlags open without waiting for the other end of what turns out to be a pipe.
const readFlags = os.O_RDONLY | syscall.O_NONBLOCK | syscall.O_NOCTTY

// linked is the inode of a file, and whether it has several names.
func linked(st fs.FileInfo) (inode uint64, several bool) {
	s, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return s.Ino, s.Nlink > 1
}
