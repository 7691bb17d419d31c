package peernet

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"peercompute/pkg/mesh"
)

// askedGate is a trust list that lets a test act between one answer and what is
// done with it.
type askedGate struct {
	gateOf
	asking sync.Mutex
	asked  int
	at     int // the question behind whose answer act runs; 0 = none
	act    func()
	wait   time.Duration // for act; 0 = a moment
}

func (g *askedGate) Allowed(p mesh.PeerID) bool {
	ok := g.gateOf.Allowed(p)
	g.asking.Lock()
	g.asked++
	var act func()
	if g.asked == g.at {
		act = g.act
	}
	g.asking.Unlock()
	if act == nil {
		return ok
	}
	// Some questions are asked under a lock that the removal needs too; then it
	// cannot come in between, and goes on after the answer is used.
	done := make(chan struct{})
	go func() { defer close(done); act() }()
	select {
	case <-done:
	case <-time.After(max(g.wait, 50*time.Millisecond)):
	}
	return ok
}

// arm starts counting questions; act runs behind the one numbered at.
func (g *askedGate) arm(at int, act func()) {
	g.asking.Lock()
	defer g.asking.Unlock()
	g.asked, g.at, g.act = 0, at, act
}

func (g *askedGate) count() int {
	g.asking.Lock()
	defer g.asking.Unlock()
	return g.asked
}

// A peer is removed right behind each single answer "yes" that is given while it
// connects and opens a stream, by either side, with and without an invite open.
// Wherever that is, nothing of it survives: no connection that is not a guest's,
// no handler that is not told to end, no byte.
func TestRemovedWhileConnecting(t *testing.T) {
	for _, transport := range []string{onTCP, onQUIC} {
		for _, inbound := range []bool{true, false} {
			for _, invited := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/inbound=%t/invited=%t", transport[len("/ip4/127.0.0.1/"):], inbound, invited), func(t *testing.T) {
					questions := 0
					for at := 1; ; at++ {
						asked, removed := removedBehind(t, at, transport, inbound, invited)
						if !removed {
							break
						}
						questions = max(questions, asked)
						if at > 64 {
							t.Fatal("the questions do not end")
						}
					}
					if least := 4; questions < least {
						t.Errorf("only %d questions were asked, want at least %d", questions, least)
					}
				})
			}
		}
	}
}

func removedBehind(t *testing.T, at int, transport string, inbound, invited bool) (asked int, removed bool) {
	gate := &askedGate{}
	server := startExpecting(t, 1, gate, func() bool { return invited }, transport)
	peer := start(t, 2, &gateOf{all: true}, transport)
	p := peer.ID()
	gate.set(p, true)

	var gone atomic.Bool
	var late atomic.Int32 // bytes that a handler read after the removal
	var wg sync.WaitGroup
	handler := func(ctx context.Context, s *Stream) {
		wg.Add(1)
		defer wg.Done()
		b := make([]byte, 1)
		for {
			if _, err := io.ReadFull(s, b); err != nil {
				return
			}
			if gone.Load() {
				late.Add(1)
			}
			if _, err := s.Write(b); err != nil {
				return
			}
		}
	}
	server.Handle(echo, handler)
	peer.Handle(echo, func(_ context.Context, s *Stream) { _, _ = io.Copy(s, s) })

	gate.arm(at, func() {
		gate.set(p, false)
		if err := server.Disconnect(p); err != nil {
			t.Errorf("after question %d: %v", at, err)
		}
		gone.Store(true)
	})
	from, to := server, peer
	if inbound {
		from, to = peer, server
	}
	from.Learn(to.ID(), to.Addrs())
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if s, err := from.Open(ctx, to.ID(), echo); err == nil {
		s.SetDeadline(time.Now().Add(30 * time.Second))
		b := []byte{1}
		for range 3 {
			if _, err = s.Write(b); err == nil {
				_, err = io.ReadFull(s, b)
			}
			if err == nil && gone.Load() {
				t.Errorf("after question %d: a byte goes both ways", at)
			}
		}
		s.Reset()
	}
	asked = gate.count()
	gate.arm(0, nil)
	if asked < at {
		return asked, false
	}
	within(t, 30*time.Second, "the removal to be done", gone.Load)
	// At once, or with the answer to the handshake: nothing but a guest is connected.
	within(t, 30*time.Second, fmt.Sprintf("after question %d: the connection to end", at), func() bool {
		_, up := server.Connected(p)
		return !up || invited && inbound && guestsHere(server) > 0
	})
	wg.Wait()
	if n := late.Load(); n > 0 {
		t.Errorf("after question %d: a handler read %d bytes", at, n)
	}
	return asked, true
}

func guestsHere(n *Net) int {
	n.guests.mu.Lock()
	defer n.guests.mu.Unlock()
	return len(n.guests.here)
}

func within(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s", what, limit)
		}
	}
}

// A peer that is removed and comes back as a guest, all between Open's first look
// at the list and its use of a connection, gets no stream.
func TestOpenTakesNoGuestsConnection(t *testing.T) {
	gate := &askedGate{}
	server := startExpecting(t, 1, gate, func() bool { return true }, onTCP)
	peer := start(t, 2, &gateOf{all: true}, onTCP)
	var reached atomic.Int32
	peer.Handle(echo, func(_ context.Context, s *Stream) {
		if _, err := io.ReadFull(s, make([]byte, 1)); err == nil {
			reached.Add(1)
		}
	})
	p := peer.ID()
	gate.set(p, true)
	peer.Learn(server.ID(), server.Addrs())
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	back := make(chan error, 1)
	gate.arm(1, func() {
		gate.set(p, false)
		_ = server.Disconnect(p)
		back <- peer.Connect(ctx, server.ID())
		within(t, 30*time.Second, "the guest", func() bool { return guestsHere(server) == 1 })
	})
	gate.wait = 30 * time.Second
	s, err := server.Open(ctx, p, echo)
	if err == nil {
		_, _ = s.Write([]byte{1})
		s.Reset()
	}
	if back := <-back; back != nil {
		t.Fatalf("the guest did not come: %v", back)
	}
	if mesh.KindOf(err) != mesh.Untrusted || reached.Load() != 0 {
		t.Fatalf("a stream to a removed peer: %v; it got %d", err, reached.Load())
	}
}
