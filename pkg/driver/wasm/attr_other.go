//go:build !linux

package wasm

import "syscall"

// workerAttributes makes a worker a session of its own, so that Ctrl-C at peerd's
// terminal is peerd's to handle.
func workerAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }
