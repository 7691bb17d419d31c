// Package socket reads and writes connections with fewer wake-ups inside this
// process. Go's runtime expects any system call to take long: its monitor thread is
// woken when one begins, looks every 20 µs whether it is over, and gives the
// processor to another thread if not. The calls on a socket never wait, Go has set
// it so; and a proxy makes hardly any others. Here they are made without notice.
// The waiting is left to Go's own poller, with deadlines and closing as ever.
//
// This is for Linux. On other systems it changes nothing.
package socket

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
)

// Conn is a connection over a socket.
type Conn struct {
	net.Conn
	raw syscall.RawConn
}

// Wrap returns a connection that does what c does. It is c where this package can
// do nothing for it.
func Wrap(c net.Conn) net.Conn {
	if k := New(c); k != nil {
		return k
	}
	return c
}

// New is c as a Conn; nil if this package can do nothing for it.
func New(c net.Conn) *Conn {
	if k, ok := c.(*Conn); ok {
		return k
	}
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil || !neverWaits(raw) {
		return nil
	}
	return &Conn{Conn: c, raw: raw}
}

// call is one read or write under way.
type call struct {
	buf  []byte
	n    int // bytes done
	once bool
	err  error
	read func(fd uintptr) bool // its methods, made once: they are asked for at each call
	put  func(fd uintptr) bool
}

var calls = sync.Pool{New: func() any {
	c := &call{}
	c.read, c.put = c.tryRead, c.tryWrite
	return c
}}

// do makes a call with b as its buffer.
func do(b []byte, once bool, how func(*call) error) (int, error) {
	c := calls.Get().(*call)
	c.buf, c.n, c.once, c.err = b, 0, once, nil
	err := how(c)
	n := c.n
	if err == nil && c.err != nil {
		err = c.err
	}
	c.buf, c.err = nil, nil
	calls.Put(c)
	return n, err
}

// Read is net.Conn's.
func (k *Conn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n, err := do(b, false, func(c *call) error { return k.raw.Read(c.read) })
	if n == 0 && err == nil {
		return 0, io.EOF
	}
	return n, k.wrap("read", err)
}

// Write is net.Conn's.
func (k *Conn) Write(b []byte) (int, error) {
	n, err := do(b, false, func(c *call) error { return k.raw.Write(c.put) })
	return n, k.wrap("write", err)
}

// TryWrite writes what there is room for now, which may be nothing.
func (k *Conn) TryWrite(b []byte) (int, error) {
	n, err := do(b, true, func(c *call) error { return k.raw.Write(c.put) })
	return n, k.wrap("write", err)
}

// wrap gives an error of the system the form that net gives it.
func (k *Conn) wrap(op string, err error) error {
	if errno, ok := err.(syscall.Errno); ok {
		return &net.OpError{Op: op, Net: k.LocalAddr().Network(), Source: k.LocalAddr(), Addr: k.RemoteAddr(), Err: os.NewSyscallError(op, errno)}
	}
	return err
}

func (c *call) tryRead(fd uintptr) bool {
	for {
		n, errno := readNow(fd, c.buf)
		switch errno {
		case 0:
			c.n = n
			return true
		case syscall.EINTR:
		case syscall.EAGAIN:
			return false
		default:
			c.err = errno
			return true
		}
	}
}

func (c *call) tryWrite(fd uintptr) bool {
	for c.n < len(c.buf) {
		n, errno := writeNow(fd, c.buf[c.n:])
		switch errno {
		case 0:
			c.n += n
			if c.once {
				return true
			}
		case syscall.EINTR:
		case syscall.EAGAIN:
			return c.once
		default:
			c.err = errno
			return true
		}
	}
	return true
}

// CloseWrite half-closes the connection, if it can be.
func (k *Conn) CloseWrite() error {
	if h, ok := k.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return k.Close()
}

// SyscallConn is that of the connection, for socket options.
func (k *Conn) SyscallConn() (syscall.RawConn, error) { return k.raw, nil }
