package publish

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"peercompute/pkg/mesh"
	"peercompute/pkg/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	workload = mesh.WorkloadID("aaaaaaaaaaaaaaaa")
	gatewayA = mesh.PeerID("gateway-a")
)

// tcpStream is a Stream over TCP.
type tcpStream struct{ *net.TCPConn }

func (s tcpStream) Reset() {
	_ = s.SetLinger(0)
	s.Close()
}

func pair(t *testing.T) (a, b *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); d.Close() })
	for _, c := range []net.Conn{c, d} {
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	}
	return c.(*net.TCPConn), d.(*net.TCPConn)
}

// served is one stream served by Tunnels: the gateway's end of it, the
// workload's end of what was dialled, and a channel that closes after Serve.
type served struct {
	gateway  *net.TCPConn
	workload *net.TCPConn
	done     chan struct{}
	cancel   context.CancelFunc
}

func config(cfg Config, conn net.Conn) Config {
	if cfg.Allow == nil {
		cfg.Allow = func(mesh.PeerID, mesh.WorkloadID) error { return nil }
	}
	if cfg.Dial == nil {
		cfg.Dial = func(context.Context, mesh.WorkloadID) (net.Conn, func(), error) { return conn, func() {}, nil }
	}
	return cfg
}

func start(t *testing.T, cfg Config) (*served, *Tunnels) {
	t.Helper()
	near, far := pair(t)
	mine, theirs := pair(t)
	tu, err := New(config(cfg, mine))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &served{gateway: near, workload: theirs, done: make(chan struct{}), cancel: cancel}
	go func() {
		defer close(s.done)
		tu.Serve(ctx, gatewayA, tcpStream{far})
		far.Close() // as peernet does when a handler returns
	}()
	t.Cleanup(func() {
		cancel()
		s.wait(t)
		mine.Close()
	})
	return s, tu
}

func (s *served) wait(t *testing.T) {
	t.Helper()
	select {
	case <-s.done:
	case <-time.After(50 * time.Second):
		t.Fatal("Serve does not return")
	}
}

func (s *served) open(t *testing.T) {
	t.Helper()
	send(t, s.gateway)
	if got := readByte(t, s.gateway); got != wire.TunnelOpen {
		t.Fatalf("status %#x", got)
	}
}

func send(t *testing.T, c net.Conn) {
	t.Helper()
	h, err := wire.TunnelHeader{Workload: workload, Label: "web"}.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(h); err != nil {
		t.Fatal(err)
	}
}

func readByte(t *testing.T, c net.Conn) byte {
	t.Helper()
	var b [1]byte
	if _, err := io.ReadFull(c, b[:]); err != nil {
		t.Fatal(err)
	}
	return b[0]
}

func TestSpliceBothWays(t *testing.T) {
	s, tu := start(t, Config{})
	s.open(t)
	up, down := make([]byte, 3<<20), make([]byte, 2<<20)
	_, _ = rand.Read(up)
	_, _ = rand.Read(down)
	var wg sync.WaitGroup
	for _, w := range []struct {
		c net.Conn
		b []byte
	}{{s.gateway, up}, {s.workload, down}} {
		wg.Go(func() {
			if _, err := w.c.Write(w.b); err != nil {
				t.Error(err)
			}
			_ = w.c.(*net.TCPConn).CloseWrite()
		})
	}
	for _, r := range []struct {
		c    net.Conn
		want []byte
	}{{s.gateway, down}, {s.workload, up}} {
		wg.Go(func() {
			if got, err := io.ReadAll(r.c); err != nil || !bytes.Equal(got, r.want) {
				t.Errorf("got %d bytes, %v; want %d", len(got), err, len(r.want))
			}
		})
	}
	wg.Wait()
	s.wait(t)
	if n := tu.Streams(); n != 0 {
		t.Errorf("%d streams are counted after the end", n)
	}
}

// TestHalfClose: the answer to a request that ended comes through.
func TestHalfClose(t *testing.T) {
	s, _ := start(t, Config{})
	s.open(t)
	_, _ = s.gateway.Write([]byte("ask"))
	_ = s.gateway.CloseWrite()
	if got, err := io.ReadAll(s.workload); string(got) != "ask" || err != nil {
		t.Fatalf("the workload read %q, %v", got, err)
	}
	_, _ = s.workload.Write([]byte("answer"))
	s.workload.Close()
	if got, err := io.ReadAll(s.gateway); string(got) != "answer" || err != nil {
		t.Errorf("the gateway read %q, %v", got, err)
	}
}

func TestRefusals(t *testing.T) {
	secret := errors.New("secret")
	for name, tc := range map[string]struct {
		cfg    Config
		status byte
	}{
		"not allowed": {Config{Allow: func(mesh.PeerID, mesh.WorkloadID) error {
			return mesh.Errorf(mesh.Denied, "no").Because(secret)
		}, Dial: func(context.Context, mesh.WorkloadID) (net.Conn, func(), error) {
			panic("dialled for a gateway that is not allowed")
		}}, byte(mesh.Denied)},
		"unknown": {Config{Allow: func(gw mesh.PeerID, id mesh.WorkloadID) error {
			if gw != gatewayA || id != workload {
				return mesh.Errorf(mesh.Internal, "asked about the wrong ones")
			}
			return mesh.Errorf(mesh.NotFound, "no such workload")
		}}, byte(mesh.NotFound)},
		"does not listen": {Config{Dial: func(context.Context, mesh.WorkloadID) (net.Conn, func(), error) {
			return nil, nil, mesh.Errorf(mesh.Unavailable, "refused")
		}}, byte(mesh.Unavailable)},
		"does not answer": {Config{DialTimeout: 20 * time.Millisecond, Dial: func(ctx context.Context, _ mesh.WorkloadID) (net.Conn, func(), error) {
			<-ctx.Done()
			return nil, nil, ctx.Err()
		}}, byte(mesh.Timeout)},
		"no kind": {Config{Dial: func(context.Context, mesh.WorkloadID) (net.Conn, func(), error) { return nil, nil, secret }}, byte(mesh.Internal)},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := start(t, tc.cfg)
			send(t, s.gateway)
			if got := readByte(t, s.gateway); got != tc.status {
				t.Errorf("status %#x, want %#x", got, tc.status)
			}
			s.wait(t)
		})
	}
}

func TestBadHeader(t *testing.T) {
	s, _ := start(t, Config{})
	_, _ = s.gateway.Write(append([]byte{9}, make([]byte, 100)...))
	if got := readByte(t, s.gateway); got != byte(mesh.Unsupported) {
		t.Errorf("status %#x", got)
	}
}

func TestSlowHeader(t *testing.T) {
	s, _ := start(t, Config{HeaderTimeout: 50 * time.Millisecond})
	_, _ = s.gateway.Write([]byte{1})
	s.wait(t)
}

func TestStreamLimit(t *testing.T) {
	first, tu := start(t, Config{MaxStreams: 1})
	first.open(t)
	for _, c := range []struct { // in this order: the second ends the connection that all share here
		gw   mesh.PeerID
		want byte
	}{{gatewayA, byte(mesh.Overloaded)}, {"gateway-b", wire.TunnelOpen}} {
		gw, want := c.gw, c.want
		near, far := pair(t)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			tu.Serve(ctx, gw, tcpStream{far})
		}()
		send(t, near)
		if got := readByte(t, near); got != want {
			t.Errorf("%s: status %#x, want %#x", gw, got, want)
		}
		cancel()
		<-done
	}
}

func TestIdleAndLinger(t *testing.T) {
	s, _ := start(t, Config{IdleTimeout: 3 * time.Second, LingerTimeout: 50 * time.Millisecond})
	s.open(t)
	for range 6 { // longer than the limit in all, but never idle
		time.Sleep(600 * time.Millisecond)
		if _, err := s.gateway.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		readByte(t, s.workload)
	}
	begun := time.Now()
	s.wait(t)
	if idle := time.Since(begun); idle < 2900*time.Millisecond || idle > 40*time.Second {
		t.Errorf("ended after %s of silence", idle)
	}

	s, _ = start(t, Config{IdleTimeout: time.Hour, LingerTimeout: 50 * time.Millisecond})
	s.open(t)
	_ = s.workload.CloseWrite() // and the gateway does not react
	s.wait(t)
}

// TestEnds: whoever goes away, the other side learns of it, and Serve returns.
func TestEnds(t *testing.T) {
	for name, end := range map[string]func(*served, *Tunnels){
		"gateway resets":  func(s *served, _ *Tunnels) { tcpStream{s.gateway}.Reset() },
		"workload resets": func(s *served, _ *Tunnels) { tcpStream{s.workload}.Reset() },
		"peer removed":    func(s *served, _ *Tunnels) { s.cancel() },
		"unpublished":     func(_ *served, tu *Tunnels) { tu.Drop(workload) },
	} {
		t.Run(name, func(t *testing.T) {
			s, tu := start(t, Config{})
			s.open(t)
			_, _ = s.gateway.Write([]byte("x"))
			readByte(t, s.workload)
			end(s, tu)
			if name != "workload resets" { // then the gateway is to say that it has seen it
				select {
				case <-s.done:
				case <-time.After(30 * time.Second):
					t.Fatal("Serve goes on")
				}
			}
			if name != "gateway resets" {
				if _, err := io.ReadAll(s.gateway); err == nil && name != "peer removed" && name != "unpublished" {
					t.Error("a cut answer looks whole to the gateway")
				}
			}
			if name != "workload resets" {
				_, _ = io.ReadAll(s.workload)
			} else {
				tcpStream{s.gateway}.Reset()
			}
			s.wait(t)
		})
	}
}

// TestEarlyAnswer: the workload answers and stops reading while the gateway
// still sends. The answer comes through whole.
func TestEarlyAnswer(t *testing.T) {
	// The workload takes no more, so what ends this is the linger limit.
	s, _ := start(t, Config{LingerTimeout: time.Second})
	s.open(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 64<<10)
		for {
			select {
			case <-stop:
				return
			default:
				if _, err := s.gateway.Write(buf); err != nil {
					return
				}
			}
		}
	})
	readByte(t, s.workload)
	answer := bytes.Repeat([]byte("no"), 50_000)
	if _, err := s.workload.Write(answer); err != nil {
		t.Fatal(err)
	}
	_ = s.workload.CloseWrite()
	got, err := io.ReadAll(s.gateway)
	if err != nil || !bytes.Equal(got, answer) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	close(stop)
	tcpStream{s.gateway}.Reset()
	wg.Wait()
	s.wait(t)
}

func TestNewRequires(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("New without Allow and Dial")
	}
}
