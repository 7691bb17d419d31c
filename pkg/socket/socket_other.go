//go:build !linux

package socket

import "syscall"

func neverWaits(syscall.RawConn) bool { return false }

func readNow(uintptr, []byte) (int, syscall.Errno) { return 0, syscall.ENOTSUP }

func writeNow(uintptr, []byte) (int, syscall.Errno) { return 0, syscall.ENOTSUP }
