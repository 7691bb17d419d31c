package usernet

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"peercompute/pkg/driver/docker/internal/netns"
	"peercompute/pkg/mesh"
	"peercompute/pkg/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	own      = netip.MustParseAddr("198.19.0.7")
	resolver = netip.MustParseAddr("198.18.0.53")
	far      = netip.MustParseAddrPort("25.1.1.1:80")
)

// namespace makes an empty network namespace; the file goes with the test.
func namespace(t testing.TB) string {
	t.Helper()
	testkit.Need(t, "root")
	testkit.Need(t, "tun")
	path := filepath.Join(t.TempDir(), "ns")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	made := make(chan error, 1)
	unshare := func() {
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = unix.Mount(netns.Own, path, "", unix.MS_BIND, "")
		}
		made <- err
	}
	go func() {
		runtime.LockOSThread() // for ever: the thread goes with the goroutine
		if unix.Gettid() != unix.Getpid() {
			unshare()
			return
		}
		defer runtime.UnlockOSThread() // the runtime keeps the main thread
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread() // another one: the main thread is taken
			unshare()
		}()
		<-done
	}()
	if err := <-made; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(path, unix.MNT_DETACH) })
	return path
}

// open opens a way out that ends with the test.
func open(t testing.TB, c Config) (ns string, n *Net) {
	t.Helper()
	c.Namespace, c.Address, c.Resolver = namespace(t), own, resolver
	n, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return c.Namespace, n
}

// inside connects from inside the namespace.
func inside(ctx context.Context, ns, network, to string) (net.Conn, error) {
	d := net.Dialer{Timeout: 10 * time.Second, Control: func(_, _ string, raw syscall.RawConn) error {
		kind := unix.SOCK_STREAM
		if strings.HasPrefix(network, "udp") {
			kind = unix.SOCK_DGRAM
		}
		var fd int
		if err := netns.Do(ns, func() (err error) {
			fd, err = unix.Socket(unix.AF_INET, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			return err
		}); err != nil {
			return err
		}
		defer unix.Close(fd)
		var dup error
		if err := raw.Control(func(old uintptr) { dup = unix.Dup3(fd, int(old), unix.O_CLOEXEC) }); err != nil {
			return err
		}
		return dup
	}}
	return d.DialContext(ctx, network, to)
}

// echo is a server on this machine that sends back what it gets.
func echo(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				io.Copy(c, c)
			})
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return l.Addr().String()
}

// A zero Config reaches nothing.
func TestZeroConfigDenies(t *testing.T) {
	ns, _ := open(t, Config{})
	for _, network := range []string{"tcp4", "udp4"} {
		c, err := inside(t.Context(), ns, network, far.String())
		if err == nil { // UDP knows no better before it has sent
			c.Write([]byte("x"))
			c.SetReadDeadline(time.Now().Add(5 * time.Second))
			_, err = c.Read(make([]byte, 1))
			c.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%s: got %v", network, err)
		}
	}
	if _, err := Open(Config{Namespace: "/proc/self/ns/net", Address: own, Resolver: resolver}); err == nil {
		t.Fatal("a device was made in this machine's own namespace")
	}
}

// Bytes arrive as they were sent, both ways, and an end that is half closed is.
func TestBytesPassBothWays(t *testing.T) {
	server := echo(t)
	ns, _ := open(t, Config{Dial: func(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
		if network != "tcp" || to != far {
			return nil, mesh.Errorf(mesh.Denied, "%s %s", network, to)
		}
		return (&net.Dialer{}).DialContext(ctx, "tcp", server)
	}})
	c, err := inside(t.Context(), ns, "tcp4", far.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sent := make([]byte, 3<<20)
	rand.Read(sent)
	var sending sync.WaitGroup
	sending.Go(func() {
		if _, err := c.Write(sent); err != nil {
			t.Error(err)
		}
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			t.Error(err)
		}
	})
	got, err := io.ReadAll(c)
	sending.Wait()
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes came back, %v", len(got), len(sent), err)
	}
	if c, err := inside(t.Context(), ns, "tcp4", "25.1.1.1:81"); err == nil {
		c.Close()
		t.Error("a connection that may not be looks as if it stood")
	}
}

// More connections than the bound are refused; when some end there is room again.
func TestConnectionsAreBounded(t *testing.T) {
	server := echo(t)
	ns, n := open(t, Config{Dial: func(ctx context.Context, _ string, _ netip.AddrPort) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", server)
	}})
	var held []net.Conn
	defer func() {
		for _, c := range held {
			c.Close()
		}
	}()
	for range MaxConns {
		c, err := inside(t.Context(), ns, "tcp4", far.String())
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
	}
	if c, err := inside(t.Context(), ns, "tcp4", far.String()); err == nil {
		c.Close()
		t.Fatalf("%d connections stand at once", MaxConns+1)
	}
	for _, c := range held[:10] {
		c.Close()
	}
	held = held[10:]
	for ctx := t.Context(); ; {
		c, err := inside(ctx, ns, "tcp4", far.String())
		if err == nil {
			held = append(held, c)
			break
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	// Close ends what stands, and takes the device away.
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if c, err := inside(t.Context(), ns, "tcp4", far.String()); err == nil {
		c.Close()
		t.Error("a way out that is closed still leads out")
	}
}

// Names are asked over UDP and TCP, and flows of UDP are bounded.
func TestResolverAndFlows(t *testing.T) {
	var flows atomic.Int32
	remote, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer remote.Close()
	ns, n := open(t, Config{
		Lookup: names,
		Check: func(network string, to netip.AddrPort) error {
			if network == "udp" && to == far {
				return nil
			}
			return mesh.Errorf(mesh.Denied, "no")
		},
		Dial: func(_ context.Context, network string, _ netip.AddrPort) (net.Conn, error) {
			flows.Add(1)
			return net.Dial(network, remote.LocalAddr().String())
		},
	})
	for _, network := range []string{"udp", "tcp"} {
		r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return inside(ctx, ns, network+"4", netip.AddrPortFrom(resolver, 53).String())
		}}
		if got, err := r.LookupHost(t.Context(), "good.example"); err != nil || len(got) != 1 || got[0] != "25.1.1.1" {
			t.Errorf("%s: got %v, %v", network, got, err)
		}
		if got, err := r.LookupHost(t.Context(), "lan.example"); err == nil {
			t.Errorf("%s: got %v", network, got)
		}
	}
	flow, err := inside(t.Context(), ns, "udp4", far.String())
	if err != nil {
		t.Fatal(err)
	}
	defer flow.Close()
	b := make([]byte, 100)
	flow.Write([]byte("ping"))
	size, from, err := remote.ReadFrom(b)
	if err != nil || string(b[:size]) != "ping" {
		t.Fatalf("got %q, %v", b[:size], err)
	}
	remote.WriteTo([]byte("pong"), from)
	if size, err = flow.Read(b); err != nil || string(b[:size]) != "pong" {
		t.Fatalf("got %q, %v", b[:size], err)
	}
	for range 2 * MaxFlows {
		c, err := inside(t.Context(), ns, "udp4", far.String())
		if err != nil {
			t.Fatal(err)
		}
		c.Write([]byte("x"))
		c.Close()
	}
	// Closing waits for every flow that was begun.
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if got := flows.Load(); got > MaxFlows {
		t.Errorf("%d flows at once", got)
	}
}
