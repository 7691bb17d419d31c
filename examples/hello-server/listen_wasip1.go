package main

import "syscall"

// nonblocking makes waiting for connections the business of Go's scheduler: a
// program for WASI has one thread, which must not stand still in one call.
func nonblocking(fd int) error { return syscall.SetNonblock(fd, true) }
