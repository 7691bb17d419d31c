package peernet

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"

	"peercompute/pkg/mesh"
	"peercompute/pkg/testkit"
)

// gateOf is a trust list for tests.
type gateOf struct {
	mu  sync.Mutex
	all bool
	ids map[mesh.PeerID]bool
}

func (g *gateOf) Allowed(p mesh.PeerID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.all || g.ids[p]
}

func (g *gateOf) set(p mesh.PeerID, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ids == nil {
		g.ids = map[mesh.PeerID]bool{}
	}
	g.ids[p] = ok
}

func start(t testing.TB, seed byte, gate Gate, listen ...string) *Net {
	t.Helper()
	return startExpecting(t, seed, gate, nil, listen...)
}

func startExpecting(t testing.TB, seed byte, gate Gate, expecting func() bool, listen ...string) *Net {
	t.Helper()
	key, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	n, err := New(Config{Key: key, Listen: listen, Gate: gate, Expecting: expecting})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- n.Run(ctx, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return n
}

const (
	onTCP  = "/ip4/127.0.0.1/tcp/0"
	onQUIC = "/ip4/127.0.0.1/udp/0/quic-v1"
	echo   = "/test/echo/1"
)

// A stranger reaches no handler, by any transport, in either direction.
func TestStrangersReachNoHandler(t *testing.T) {
	for _, transport := range []string{onTCP, onQUIC} {
		var handled atomic.Int32
		server := start(t, 1, &gateOf{}, transport)
		server.Handle(echo, func(context.Context, *Stream) { handled.Add(1) })
		stranger := start(t, 2, &gateOf{all: true}, transport)
		stranger.Handle(echo, func(context.Context, *Stream) { handled.Add(1) })
		stranger.Learn(server.ID(), server.Addrs())
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		s, err := stranger.Open(ctx, server.ID(), echo)
		if err == nil {
			// The dialler's handshake may end before the refusal arrives; then nothing comes back.
			_, _ = s.Write([]byte("hello"))
			if n, err := s.Read(make([]byte, 1)); err == nil {
				t.Errorf("%s: a stranger read %d bytes", transport, n)
			}
			s.Reset()
		}
		server.Learn(stranger.ID(), stranger.Addrs())
		if _, err := server.Open(ctx, stranger.ID(), echo); mesh.KindOf(err) != mesh.Untrusted {
			t.Errorf("%s: dialling a stranger: %v, want Untrusted", transport, err)
		}
		if err := server.Connect(ctx, stranger.ID()); err == nil {
			t.Errorf("%s: connected to a stranger", transport)
		}
		cancel()
		if _, up := server.Connected(stranger.ID()); up || handled.Load() != 0 {
			t.Errorf("%s: connected %t, %d handlers ran", transport, up, handled.Load())
		}
	}
}

// Each of the five interceptors refuses by itself.
func TestEachInterceptorRefuses(t *testing.T) {
	gate := &gateOf{}
	server := start(t, 1, gate, onTCP)
	other := start(t, 2, &gateOf{all: true}, onTCP)
	g, p := server.gater, other.ID()
	ask := map[string]func() bool{
		"peer dial": func() bool { return g.InterceptPeerDial(p) },
		"addr dial": func() bool { return g.InterceptAddrDial(p, nil) },
		"secured":   func() bool { return g.InterceptSecured(network.DirInbound, p, nil) },
		"upgraded":  func() bool { ok, _ := g.InterceptUpgraded(fakeConn{p: p}); return ok },
		"no ID":     func() bool { return g.InterceptSecured(network.DirInbound, "", nil) },
		"itself":    func() bool { return g.InterceptPeerDial(server.ID()) },
	}
	for name, f := range ask {
		if f() {
			t.Errorf("%s: a stranger passes", name)
		}
	}
	gate.set(p, true)
	gate.set(server.ID(), true)
	for name, f := range ask {
		if want := name != "no ID" && name != "itself"; f() != want {
			t.Errorf("%s: a trusted peer passes: %t, want %t", name, !want, want)
		}
	}
}

type fakeConn struct {
	network.Conn
	p mesh.PeerID
}

func (c fakeConn) RemotePeer() mesh.PeerID { return c.p }

func (c fakeConn) Stat() network.ConnStats {
	return network.ConnStats{Stats: network.Stats{Direction: network.DirInbound}}
}

// Trust is asked again for each stream: a connection that outlived it carries none.
func TestTrustIsAskedOnEveryStream(t *testing.T) {
	gate := &gateOf{}
	server := start(t, 1, gate, onTCP)
	var handled atomic.Int32
	server.Handle(echo, func(_ context.Context, s *Stream) { handled.Add(1); _, _ = io.Copy(s, s) })
	client := start(t, 2, &gateOf{all: true})
	gate.set(client.ID(), true)
	client.Learn(server.ID(), server.Addrs())
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	say := func() error {
		s, err := client.Open(ctx, server.ID(), echo)
		if err != nil {
			return err
		}
		defer s.Reset()
		if _, err := s.Write([]byte("x")); err != nil {
			return err
		}
		_, err = s.Read(make([]byte, 1))
		return err
	}
	if err := say(); err != nil {
		t.Fatal(err)
	}
	gate.set(client.ID(), false) // and the connection stays, as it would within a removal
	if err := say(); err == nil || handled.Load() != 1 {
		t.Fatalf("after trust was withdrawn: %v, %d handlers ran", err, handled.Load())
	}
}

// Removal resets what is under way: handlers end, their context too.
func TestDisconnectEndsHandlersWithinASecond(t *testing.T) {
	gate := &gateOf{}
	server := start(t, 1, gate, onTCP)
	const streams = 200
	var running, ended sync.WaitGroup
	running.Add(streams)
	ended.Add(streams)
	server.Handle(echo, func(ctx context.Context, s *Stream) {
		defer ended.Done()
		_, _ = io.ReadFull(s, make([]byte, 1))
		running.Done()
		<-ctx.Done()
	})
	client := start(t, 2, &gateOf{all: true})
	gate.set(client.ID(), true)
	client.Learn(server.ID(), server.Addrs())
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for range streams {
		s, err := client.Open(ctx, server.ID(), echo)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	running.Wait()
	gate.set(client.ID(), false)
	stall, began := testkit.WatchStall(t), time.Now()
	if err := server.Disconnect(client.ID()); err != nil {
		t.Fatal(err)
	}
	all := make(chan struct{})
	go func() { ended.Wait(); close(all) }()
	select {
	case <-all:
	case <-time.After(20 * time.Second):
		t.Fatal("handlers go on")
	}
	if took := time.Since(began) - stall.Lost(); took > time.Second {
		t.Errorf("%d handlers ended after %s, want within a second", streams, took)
	}
	if _, up := server.Connected(client.ID()); up {
		t.Error("still connected")
	}
}

func TestParseAddr(t *testing.T) {
	n := start(t, 1, &gateOf{}, onTCP)
	full := n.Addrs()[0]
	addr, id, err := ParseAddr(full)
	if err != nil || id != n.ID() || strings.Contains(addr, "p2p") {
		t.Fatalf("ParseAddr(%q) = %q, %s, %v", full, addr, id, err)
	}
	if _, _, err := ParseAddr("not an address"); mesh.KindOf(err) != mesh.Invalid {
		t.Fatalf("nonsense: %v, want Invalid", err)
	}
	if addr, id, err := ParseAddr("/p2p/" + n.ID().String()); addr != "" || id != n.ID() || err != nil {
		t.Fatalf("an ID alone: %q, %s, %v", addr, id, err)
	}
}

func TestDialErrorsSayWhatToDo(t *testing.T) {
	n := start(t, 1, &gateOf{all: true})
	other := start(t, 2, &gateOf{all: true})
	n.Learn(other.ID(), []string{"/ip4/127.0.0.1/tcp/9"})
	err := n.Connect(context.Background(), other.ID())
	var e *mesh.Error
	if !errors.As(err, &e) || e.Kind != mesh.Unavailable || e.Hint == "" {
		t.Fatalf("nobody listens: %v, want Unavailable with a next step", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := n.Connect(ctx, other.ID()); err == nil {
		t.Fatal("connected under a dead context")
	}
}

// A peer that was not there a moment ago is asked again when somebody wants it.
func TestOpenDialsAgainAtOnce(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	addr := fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", port)
	away := start(t, 3, &gateOf{all: true}) // the key of the one that is not there yet
	client := start(t, 1, &gateOf{all: true})
	client.Learn(away.ID(), []string{addr})
	for range 3 {
		if _, err := client.Open(t.Context(), away.ID(), echo); mesh.KindOf(err) != mesh.Unavailable {
			t.Fatalf("nobody listens: %v, want Unavailable", err)
		}
	}
	server := start(t, 3, &gateOf{all: true}, addr)
	server.Handle(echo, func(_ context.Context, s *Stream) { _ = s.Close() })
	s, err := client.Open(t.Context(), server.ID(), echo)
	if err != nil {
		t.Fatalf("it is up now: %v", err)
	}
	_ = s.Close()
}

func TestNewListsWhatIsWrong(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("a host without key and gate")
	}
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err == nil {
		if _, err := New(Config{Key: key, Gate: &gateOf{}, Listen: []string{"nonsense"}}); mesh.KindOf(err) != mesh.Invalid {
			t.Errorf("a bad listen address: %v, want Invalid", err)
		}
	}
}

// While an invite is open a stranger reaches the protocols for guests and nothing
// else; when none is, not even those.
func TestGuestsReachOnlyWhatIsForThem(t *testing.T) {
	const door, shut = "/test/door/1", "/test/shut/1"
	var open atomic.Bool
	var inside atomic.Int32
	gate := &gateOf{}
	server := startExpecting(t, 1, gate, open.Load, onTCP)
	server.Handle(echo, func(context.Context, *Stream) { inside.Add(1) })
	server.HandleGuest(door, open.Load, func(_ context.Context, s *Stream) { _, _ = s.Write([]byte("k")) })
	server.HandleGuest(shut, func() bool { return false }, func(context.Context, *Stream) { inside.Add(1) })
	stranger := start(t, 2, &gateOf{})
	knock := func(proto string) error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		s, done, err := stranger.Knock(ctx, server.ID(), server.Addrs(), proto)
		if err != nil {
			return err
		}
		defer done()
		defer s.Reset()
		s.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := s.Write([]byte("x")); err != nil {
			return err
		}
		_, err = s.Read(make([]byte, 1))
		return err
	}
	if err := knock(door); err == nil {
		t.Error("a stranger knocks although nobody is expected")
	}
	open.Store(true)
	if err := knock(door); err != nil {
		t.Errorf("a guest cannot knock: %v", err)
	}
	if err := knock(echo); err == nil || inside.Load() != 0 {
		t.Errorf("a guest reaches more than the door: %v", err)
	}
	if err := knock(shut); err == nil || inside.Load() != 0 {
		t.Errorf("a guest reaches a door that is shut, because another is open: %v", err)
	}
	if _, err := stranger.Open(context.Background(), server.ID(), door); mesh.KindOf(err) != mesh.Untrusted {
		t.Errorf("knocking once opened the way out for good: %v", err)
	}
	gate.set(stranger.ID(), true)
	open.Store(false)
	if err := knock(echo); inside.Load() != 1 {
		t.Errorf("trusted, and still not inside: %v", err)
	}
}

// Guests are few: more connections than maxGuests are refused.
func TestGuestsAreFew(t *testing.T) {
	const door, shut = "/test/door/1", "/test/shut/1"
	server := startExpecting(t, 1, &gateOf{}, func() bool { return true }, onTCP)
	server.guests.knocks.SetBurst(1000)
	server.guests.knocks.SetLimit(1000)
	server.guests.addrRate, server.guests.burst, server.guests.perAddr = 1000, 1000, 1000
	server.HandleGuest(door, func() bool { return true }, func(ctx context.Context, s *Stream) { _, _ = s.Write([]byte("k")); <-ctx.Done() })
	in := 0
	for i := range maxGuests + 6 {
		stranger := start(t, byte(40+i), &gateOf{})
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		s, done, err := stranger.Knock(ctx, server.ID(), server.Addrs(), door)
		if err == nil {
			t.Cleanup(done)
			s.SetDeadline(time.Now().Add(time.Second))
			if _, err := s.Write([]byte("x")); err == nil {
				if _, err := s.Read(make([]byte, 1)); err == nil {
					in++
				}
			}
		}
		cancel()
	}
	if in == 0 || in > maxGuests {
		t.Fatalf("%d guests are in, want at most %d", in, maxGuests)
	}
}

// A handler that panics costs its own stream, not the node.
func TestAPanicCostsOneStream(t *testing.T) {
	server := start(t, 1, &gateOf{all: true}, onTCP)
	server.Handle(echo, func(context.Context, *Stream) { panic("a bug") })
	client := start(t, 2, &gateOf{all: true})
	client.Learn(server.ID(), server.Addrs())
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for range 2 {
		s, err := client.Open(ctx, server.ID(), echo)
		if err != nil {
			t.Fatal(err)
		}
		s.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = s.Write([]byte("x"))
		if _, err := s.Read(make([]byte, 1)); err == nil {
			t.Fatal("a handler that panicked answered")
		}
	}
}
