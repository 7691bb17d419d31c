//go:build !linux

package jail

import (
	"errors"
	"fmt"
	"syscall"
)

// Confine limits what this platform lets a process limit by itself.
func Confine(c Config) (Applied, error) {
	c = c.withDefaults()
	a := Applied{Root: c.Root}
	for _, l := range []struct {
		which int
		max   uint64
	}{{syscall.RLIMIT_CORE, 0}, {syscall.RLIMIT_NOFILE, c.Files}, {syscall.RLIMIT_FSIZE, c.File}} {
		if err := syscall.Setrlimit(l.which, &syscall.Rlimit{Cur: l.max, Max: l.max}); err != nil {
			return a, fmt.Errorf("cannot limit a worker: %w", err)
		}
	}
	a.held("rlimits: no core, open files, file size")
	a.Missing = Missing("")
	return a, nil
}

// RestrictThread restricts nothing on this platform.
func RestrictThread(root, exe string) (Applied, error) { return Applied{}, nil }

// Sacrifice does nothing.
func Sacrifice(int) error { return nil }

// Missing is what Confine and NewGroup cannot do on this platform, one line each.
func Missing(string) []string {
	var a Applied
	for _, what := range []string{"system call filter", "own root directory and user", "no files but its own", "memory group"} {
		a.missing(what, errors.New("Linux only"))
	}
	return a.Missing
}
