package socket

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// pairs runs a test over TCP and over a Unix socket. near is ours.
func pairs(t *testing.T, f func(t *testing.T, near *Conn, far net.Conn)) {
	if runtime.GOOS != "linux" {
		t.Skip("on this system connections are left as they are")
	}
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			addr := "127.0.0.1:0"
			if network == "unix" {
				addr = filepath.Join(t.TempDir(), "s")
			}
			ln, err := net.Listen(network, addr)
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			accepted := make(chan net.Conn, 1)
			go func() {
				c, _ := ln.Accept()
				accepted <- c
			}()
			c, err := net.Dial(network, ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			far := <-accepted
			near, ok := Wrap(c).(*Conn)
			if !ok || Wrap(near) != net.Conn(near) {
				t.Fatal("not wrapped, or twice")
			}
			t.Cleanup(func() {
				near.Close()
				far.Close()
			})
			_ = near.SetDeadline(time.Now().Add(30 * time.Second))
			_ = far.SetDeadline(time.Now().Add(30 * time.Second))
			f(t, near, far)
		})
	}
}

// TestBothWays: megabytes through, in order, while the other end is slow to read
// and to write; then the end of each direction by itself.
func TestBothWays(t *testing.T) {
	pairs(t, func(t *testing.T, near *Conn, far net.Conn) {
		want := make([]byte, 8<<20)
		for i := range want {
			want[i] = byte(i * 7 >> 3)
		}
		go func() { // an echo that stops and starts
			buf := make([]byte, 100_000)
			for {
				n, err := far.Read(buf)
				if err != nil {
					_ = far.(interface{ CloseWrite() error }).CloseWrite()
					return
				}
				if _, err := far.Write(buf[:n]); err != nil {
					return
				}
			}
		}()
		go func() {
			if n, err := near.Write(want); n != len(want) || err != nil {
				t.Errorf("wrote %d: %v", n, err)
			}
			if err := near.CloseWrite(); err != nil {
				t.Error(err)
			}
		}()
		got, err := io.ReadAll(near)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("read %d bytes, %v", len(got), err)
		}
		if n, err := near.Read(nil); n != 0 || err != nil {
			t.Errorf("reading nothing: %d, %v", n, err)
		}
	})
}

// TestDeadlinesAndClose: as those of net.
func TestDeadlinesAndClose(t *testing.T) {
	pairs(t, func(t *testing.T, near *Conn, far net.Conn) {
		timedOut := func(err error) bool {
			var ne net.Error
			return errors.Is(err, os.ErrDeadlineExceeded) && errors.As(err, &ne) && ne.Timeout()
		}
		_ = near.SetDeadline(time.Now().Add(20 * time.Millisecond))
		if _, err := near.Read(make([]byte, 1)); !timedOut(err) {
			t.Errorf("read: %v, want a timeout", err)
		}
		big := make([]byte, 64<<20)
		n, err := near.Write(big)
		if !timedOut(err) || n == len(big) {
			t.Errorf("wrote %d: %v, want a timeout", n, err)
		}
		_ = near.SetDeadline(time.Now().Add(30 * time.Second))
		if m, err := near.TryWrite(big); err != nil || m == len(big) {
			t.Errorf("tried to write to a full socket: %d, %v", m, err)
		}
		if got, err := io.CopyN(io.Discard, far, int64(n)); err != nil {
			t.Errorf("%d of the %d bytes that were written: %v", got, n, err)
		}
		closed := make(chan error, 1)
		go func() {
			_, err := near.Read(make([]byte, 1))
			closed <- err
		}()
		time.Sleep(10 * time.Millisecond) // either order is right
		near.Close()
		if err := <-closed; !errors.Is(err, net.ErrClosed) {
			t.Errorf("read on a closed connection: %v", err)
		}
		if _, err := near.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("wrote to a closed connection: %v", err)
		}
		if _, err := near.TryWrite([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("tried to write to a closed connection: %v", err)
		}
	})
}

// TestTryWrite takes what there is room for.
func TestTryWrite(t *testing.T) {
	pairs(t, func(t *testing.T, near *Conn, far net.Conn) {
		if n, err := near.TryWrite([]byte("hello")); n != 5 || err != nil {
			t.Fatalf("wrote %d, %v", n, err)
		}
		got := make([]byte, 5)
		if _, err := io.ReadFull(far, got); err != nil || string(got) != "hello" {
			t.Errorf("read %q, %v", got, err)
		}
	})
}

// TestErrors look like those of net.
func TestErrors(t *testing.T) {
	pairs(t, func(t *testing.T, near *Conn, far net.Conn) {
		far.Close()
		var err error
		for err == nil { // the first may still be taken
			_, err = near.Write([]byte("x"))
		}
		var op *net.OpError
		if !errors.As(err, &op) || op.Op != "write" || !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%#v", err)
		}
	})
}

// TestOnlyWhatNeverWaits: a socket on which calls wait would stop the process.
func TestOnlyWhatNeverWaits(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if Wrap(a) != a {
		t.Error("wrapped what is no socket")
	}
	pairs(t, func(t *testing.T, near *Conn, _ net.Conn) {
		raw, err := near.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := raw.Control(func(fd uintptr) { err = syscall.SetNonblock(int(fd), false) }); err != nil {
			t.Fatal(err)
		}
		if Wrap(near.Conn) != near.Conn {
			t.Error("wrapped a socket on which calls wait")
		}
		_ = raw.Control(func(fd uintptr) { _ = syscall.SetNonblock(int(fd), true) })
	})
}

func BenchmarkRoundTrip(b *testing.B) {
	for name, wrap := range map[string]func(net.Conn) net.Conn{"net": func(c net.Conn) net.Conn { return c }, "socket": Wrap} {
		b.Run(name, func(b *testing.B) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			defer ln.Close()
			go func() {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				defer c.Close()
				c = wrap(c)
				_, _ = io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{c}, make([]byte, 300))
			}()
			c, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			c = wrap(c)
			buf := make([]byte, 300)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Write(buf); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(c, buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
