package usernet

import (
	"context"
	"io"
	"net"
	"net/netip"
	"testing"
)

// BenchmarkBytes measures bytes from inside to a server of this machine and back.
func BenchmarkBytes(b *testing.B) {
	server := echo(b)
	ns, _ := open(b, Config{Dial: func(ctx context.Context, _ string, _ netip.AddrPort) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", server)
	}})
	c, err := inside(b.Context(), ns, "tcp4", far.String())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	const chunk = 1 << 20
	b.SetBytes(chunk)
	sent := make([]byte, chunk)
	got := make([]byte, chunk)
	for b.Loop() {
		failed := make(chan error, 1)
		go func() { _, err := c.Write(sent); failed <- err }()
		if _, err := io.ReadFull(c, got); err != nil {
			b.Fatal(err)
		}
		if err := <-failed; err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkConnect measures a connection and its end.
func BenchmarkConnect(b *testing.B) {
	server := echo(b)
	ns, _ := open(b, Config{Dial: func(ctx context.Context, _ string, _ netip.AddrPort) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", server)
	}})
	for b.Loop() {
		c, err := inside(b.Context(), ns, "tcp4", far.String())
		if err != nil {
			b.Fatal(err)
		}
		c.(*net.TCPConn).SetLinger(0) // no port waits behind it
		c.Close()
	}
}
