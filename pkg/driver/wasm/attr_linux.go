package wasm

import "syscall"

// workerAttributes makes a worker a session of its own, so that Ctrl-C at peerd's
// terminal is peerd's to handle, and lets the kernel end it should peerd be killed.
func workerAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
}
