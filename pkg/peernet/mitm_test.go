package peernet

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// middle is whoever controls the network: it sees every byte and may change one.
type middle struct {
	t  *testing.T
	ln net.Listener
	to string
	wg sync.WaitGroup

	mu   sync.Mutex
	seen bytes.Buffer
	flip int // the byte to change, counted over both directions; 0 = none
	n    int
}

func inTheMiddle(t *testing.T, to string, flip int) *middle {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &middle{t: t, ln: ln, to: to, flip: flip}
	m.wg.Go(m.serve)
	t.Cleanup(func() { ln.Close(); m.wg.Wait() })
	return m
}

func (m *middle) serve() {
	for {
		a, err := m.ln.Accept()
		if err != nil {
			return
		}
		b, err := net.Dial("tcp", m.to)
		if err != nil {
			a.Close()
			continue
		}
		for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
			m.wg.Go(func() {
				defer way[0].Close()
				defer way[1].Close()
				_, _ = io.Copy(tamper{m, way[1]}, way[0])
			})
		}
	}
}

type tamper struct {
	m *middle
	w io.Writer
}

func (w tamper) Write(p []byte) (int, error) {
	p = bytes.Clone(p)
	w.m.mu.Lock()
	if at := w.m.flip - w.m.n; w.m.flip > 0 && at >= 0 && at < len(p) {
		p[at] ^= 1
	}
	w.m.n += len(p)
	w.m.seen.Write(p)
	w.m.mu.Unlock()
	return w.w.Write(p)
}

func tcpAddr(t *testing.T, n *Net) string {
	t.Helper()
	addr, _, err := ParseAddr(n.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	a, err := manet.ToNetAddr(multiaddr.StringCast(addr))
	if err != nil {
		t.Fatal(err)
	}
	return a.String()
}

// Nothing readable passes the middle, a changed byte ends the connection, and
// another's key is not taken for the one that was dialled.
func TestManInTheMiddle(t *testing.T) {
	secret := []byte("a very recognisable secret that nobody on the way may read")
	server := start(t, 1, &gateOf{all: true}, onTCP)
	server.Handle(echo, func(_ context.Context, s *Stream) { _, _ = io.Copy(s, s) })
	to := tcpAddr(t, server)

	through := func(seed byte, m *middle) error {
		client := start(t, seed, &gateOf{all: true})
		a, err := manet.FromNetAddr(m.ln.Addr())
		if err != nil {
			t.Fatal(err)
		}
		client.Learn(server.ID(), []string{a.String()})
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		s, err := client.Open(ctx, server.ID(), echo)
		if err != nil {
			return err
		}
		defer s.Reset()
		s.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := s.Write(secret); err != nil {
			return err
		}
		got := make([]byte, len(secret))
		if _, err := io.ReadFull(s, got); err != nil {
			return err
		}
		if !bytes.Equal(got, secret) {
			t.Errorf("a changed byte came through: %q", got)
		}
		return nil
	}

	watcher := inTheMiddle(t, to, 0)
	if err := through(10, watcher); err != nil {
		t.Fatal(err)
	}
	watcher.mu.Lock()
	seen, total := bytes.Contains(watcher.seen.Bytes(), secret), watcher.n
	watcher.mu.Unlock()
	if seen || total == 0 {
		t.Fatalf("the middle saw the plaintext: %t, of %d bytes", seen, total)
	}
	// Changes from the first handshake byte to the last that carried the secret.
	for i, at := range []int{1, total / 8, total / 4, total / 2, total * 3 / 4} {
		if err := through(byte(20+i), inTheMiddle(t, to, at)); err == nil {
			t.Errorf("byte %d of %d changed, and nobody noticed", at, total)
		}
	}
	impostor := start(t, 3, &gateOf{all: true}, onTCP)
	impostor.Handle(echo, func(_ context.Context, s *Stream) { _, _ = io.Copy(s, s) })
	if err := through(30, inTheMiddle(t, tcpAddr(t, impostor), 0)); err == nil {
		t.Error("another peer's key was taken for the one that was dialled")
	}
}
