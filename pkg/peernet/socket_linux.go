package peernet

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// unsentBytes bounds what the kernel holds of a connection that the network has
// no room for yet. Everything there is ahead of the next short answer.
const unsentBytes = 64 << 10

// boundQueue keeps the kernel's send queue of a TCP connection short.
func boundQueue(c net.Conn) {
	sc := rawConn(c)
	if sc == nil {
		return
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		// Best effort: without it, short answers wait longer.
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsentBytes)
	})
}

// rawConn finds the TCP socket under the layers of a secure connection.
func rawConn(c net.Conn) syscall.Conn {
	for range 8 {
		if sc, ok := c.(syscall.Conn); ok {
			return sc
		}
		under, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		c = under.NetConn()
	}
	return nil
}
