package volume

import (
	"errors"
	"syscall"
)

// full reports whether a file system has no room for more.
func full(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }
