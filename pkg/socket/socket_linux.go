package socket

import (
	"syscall"
	"unsafe"
)

// neverWaits reports whether calls on the socket return at once. On one that
// waits they would stop the whole process.
func neverWaits(raw syscall.RawConn) bool {
	var flags uintptr
	var errno syscall.Errno
	err := raw.Control(func(fd uintptr) {
		flags, _, errno = syscall.RawSyscall(syscall.SYS_FCNTL, fd, syscall.F_GETFL, 0)
	})
	return err == nil && errno == 0 && flags&syscall.O_NONBLOCK != 0
}

func readNow(fd uintptr, b []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return int(n), errno
}

func writeNow(fd uintptr, b []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return int(n), errno
}
