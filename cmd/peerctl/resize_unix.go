//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// resized tells of changes of the terminal's size.
func resized() (<-chan os.Signal, func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGWINCH)
	return c, func() { signal.Stop(c) }
}
