//go:build unix

package archive

import (
	"os"
	"syscall"
)

// readFlags open without waiting for the other end of what turns out to be a pipe.
const readFlags = os.O_RDONLY | syscall.O_NONBLOCK | syscall.O_NOCTTY
