package peernet

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"golang.org/x/time/rate"

	"peercompute/pkg/mesh"
)

const door = "/test/door/1"

func always() bool { return true }

// knockAt opens a stream to the door and sends one byte; it returns what came back.
func knockAt(t *testing.T, from, to *Net, proto string) (*Stream, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	s, done, err := from.Knock(ctx, to.ID(), to.Addrs(), proto)
	if err != nil {
		return nil, err
	}
	t.Cleanup(done)
	s.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := s.Write([]byte("x")); err != nil {
		return nil, err
	}
	_, err = io.ReadFull(s, make([]byte, 1))
	return s, err
}

// A guest holds few streams, and what it cannot hold is no loss to a peer. Once
// it is trusted the same connection carries as many as any peer's.
func TestAGuestHoldsLittle(t *testing.T) {
	gate := &gateOf{}
	server := startExpecting(t, 1, gate, always, onTCP)
	server.HandleGuest(door, always, func(ctx context.Context, s *Stream) { _, _ = s.Write([]byte("k")); <-ctx.Done() })
	stranger := start(t, 2, &gateOf{all: true}, onTCP)
	if _, err := knockAt(t, stranger, server, door); err != nil {
		t.Fatal(err)
	}
	more := func() int {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		got := 0
		for range 3 * guestStreams {
			s, err := stranger.host.NewStream(ctx, server.ID(), door)
			if err != nil {
				continue
			}
			defer s.Reset()
			_ = s.SetDeadline(time.Now().Add(5 * time.Second))
			if _, err = s.Write([]byte("x")); err == nil {
				_, err = io.ReadFull(s, make([]byte, 1))
			}
			if err == nil {
				got++
			}
		}
		return got
	}
	if got := more(); got >= guestStreams {
		t.Errorf("a guest holds %d streams more, want fewer than %d", got, guestStreams)
	}
	gate.set(stranger.ID(), true)
	within(t, 30*time.Second, "the trusted peer's streams", func() bool { return more() == 3*guestStreams })
}

// One address has few guests, and its share of the turns is its own.
func TestOneAddressIsOneOfMany(t *testing.T) {
	g := newGuests(always, func(mesh.PeerID) bool { return false })
	one, two := ma.StringCast("/ip4/192.0.2.1/tcp/1"), ma.StringCast("/ip4/192.0.2.2/tcp/1")
	passed := 0
	for range 100 {
		if g.mayKnock(one) {
			passed++
		}
	}
	if passed == 0 || passed > addrAtOnce+addrASecond {
		t.Errorf("one address came in %d times at once, want at most %d", passed, addrAtOnce)
	}
	if !g.mayKnock(two) {
		t.Error("another address has no turn left")
	}
	// A subscriber of IPv6 has a whole /64.
	g.knocks.SetBurst(1000)
	passed = 0
	for i := range 50 {
		if g.mayKnock(ma.StringCast("/ip6/2001:db8::" + string(rune('a'+i%6)) + "/tcp/1")) {
			passed++
		}
	}
	if passed > addrAtOnce+addrASecond {
		t.Errorf("one /64 came in %d times at once", passed)
	}
	// However many addresses there are, together they come in now and then.
	passed = 0
	g.knocks.SetBurst(knocksAtOnce)
	g.knocks.SetLimit(0)
	for i := range 10 * knocksAtOnce {
		if g.mayKnock(ma.StringCast("/ip6/2001:db8:1:" + hex4(i) + "::1/tcp/1")) {
			passed++
		}
	}
	if passed > knocksAtOnce {
		t.Errorf("%d came in at once from as many addresses, want at most %d", passed, knocksAtOnce)
	}
	g.knocks.SetLimit(rate.Inf)
	for i := range 3 * maxAddrs {
		g.mayKnock(ma.StringCast("/ip6/2001:db8:0:" + hex4(i) + "::1/tcp/1"))
	}
	if len(g.addrs) > maxAddrs {
		t.Errorf("%d addresses are remembered, want at most %d", len(g.addrs), maxAddrs)
	}
}

func hex4(i int) string {
	const digits = "0123456789abcdef"
	return string([]byte{digits[i>>12&15], digits[i>>8&15], digits[i>>4&15], digits[i&15]})
}

// Guests from one address are fewer than all guests; one that may wait makes room,
// and waiting is bounded too. All of them can be sent away.
func TestGuestsWait(t *testing.T) {
	server := startExpecting(t, 1, &gateOf{}, always, onTCP)
	server.guests.knocks.SetBurst(1000)
	server.guests.knocks.SetLimit(1000)
	server.guests.addrRate, server.guests.burst = 1000, 1000
	var kept, ended atomic.Int32
	server.HandleGuest(door, always, func(ctx context.Context, s *Stream) {
		if server.Keep(s, time.Minute) == nil {
			kept.Add(1)
		}
		_, _ = s.Write([]byte("k"))
		<-ctx.Done()
		ended.Add(1)
	})
	in := 0
	for i := range guestsPerAddr + 3 {
		if _, err := knockAt(t, start(t, byte(60+i), &gateOf{}), server, door); err == nil {
			in++
		}
	}
	if in != guestsPerAddr {
		t.Errorf("%d guests from one address are in, want %d", in, guestsPerAddr)
	}
	server.guests.mu.Lock() // refused ones may still be on their way out
	server.guests.perAddr = 1000
	server.guests.mu.Unlock()
	for i := range maxWaiting {
		if _, err := knockAt(t, start(t, byte(80+i), &gateOf{}), server, door); err == nil {
			in++
		}
	}
	if in <= maxGuests || kept.Load() != maxWaiting {
		t.Errorf("%d are in and %d may wait, want %d waiting", in, kept.Load(), maxWaiting)
	}
	server.DisconnectGuests()
	within(t, 30*time.Second, "all guests to leave", func() bool { return guestsHere(server) == 0 && int(ended.Load()) == in })
}

// A guest that does not become a peer is sent away, unless it may wait.
func TestGuestsLeave(t *testing.T) {
	server := startExpecting(t, 1, &gateOf{}, always, onTCP)
	var keep atomic.Bool
	server.HandleGuest(door, always, func(ctx context.Context, s *Stream) {
		if keep.Load() {
			if err := server.Keep(s, time.Hour); err != nil {
				t.Error(err)
			}
		}
		_, _ = s.Write([]byte("k"))
		<-ctx.Done()
	})
	keep.Store(true)
	waits := start(t, 2, &gateOf{})
	if _, err := knockAt(t, waits, server, door); err != nil {
		t.Fatal(err)
	}
	keep.Store(false)
	server.guests.mu.Lock()
	server.guests.stay = time.Millisecond
	server.guests.mu.Unlock()
	passes := start(t, 3, &gateOf{})
	_, _ = knockAt(t, passes, server, door) // it may be sent away before it is answered
	within(t, 30*time.Second, "the guest to be sent away", func() bool {
		_, here := server.Connected(passes.ID())
		return !here && guestsHere(server) == 1
	})
	if _, here := server.Connected(waits.ID()); !here {
		t.Error("one who may wait was sent away")
	}
}

// newPeerID is one of many IDs.
func newPeerID(t testing.TB, a, b byte) mesh.PeerID {
	t.Helper()
	seed := bytes.Repeat([]byte{a}, 32)
	seed[0] = b
	key, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(seed))
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return id
}
