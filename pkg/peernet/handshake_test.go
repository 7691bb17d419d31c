package peernet

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"

	"peercompute/pkg/mesh"
)

// handshakesAt is a bound under a clock that the test moves.
func handshakesAt(gate *gateOf) (h *handshakes, pass func(time.Duration)) {
	now := time.Unix(1_800_000_000, 0)
	h = newHandshakes(gate.Allowed, slog.New(slog.DiscardHandler), func() time.Time { return now })
	return h, func(d time.Duration) { now = now.Add(d) }
}

func address(i int) netip.Prefix {
	return origin(ma.StringCast(fmt.Sprintf("/ip4/198.51.%d.%d/tcp/1", i>>8, i&255)))
}

// begun is how many of n handshakes may begin, from as many addresses as of gives.
func begun(h *handshakes, n int, of func(int) netip.Prefix) (ends []func(bool)) {
	for i := range n {
		if end := h.begin(of(i)); end != nil {
			ends = append(ends, end)
		}
	}
	return ends
}

func endAll(ends []func(bool), trusted bool) {
	for _, end := range ends {
		end(trusted)
		end(trusted) // as libp2p does
	}
}

// One address cannot hold all of the connections that may be in their handshake.
func TestOneAddressCannotHoldAllHandshakes(t *testing.T) {
	rm, err := newResourceManager(func(mesh.PeerID) bool { return true }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer rm.Close()
	got := 0
	for range 4 * maxTransient {
		if _, err := rm.OpenConnection(network.DirInbound, true, ma.StringCast("/ip4/192.0.2.1/tcp/4001")); err == nil {
			got++
		}
	}
	if got == 0 || got > maxTransient/4 {
		t.Errorf("one address holds %d connections of the %d that may be unfinished", got, maxTransient)
	}
	for _, addr := range []string{"/ip4/192.0.2.2/tcp/4001", "/ip6/2001:db8::1/tcp/4001"} {
		if _, err := rm.OpenConnection(network.DirInbound, true, ma.StringCast(addr)); err != nil {
			t.Errorf("another address, %s: %v", addr, err)
		}
	}
	// What goes out is not bounded by what comes in.
	if _, err := rm.OpenConnection(network.DirOutbound, true, ma.StringCast("/ip4/192.0.2.1/tcp/4001")); err != nil {
		t.Errorf("outwards: %v", err)
	}
}

// However many addresses strangers come from, together they get so many handshakes
// at once and a second, and nobody whose peer is trusted goes short because of it.
func TestStrangersShareHandshakes(t *testing.T) {
	friend := newPeerID(t, 1, 1)
	gate := &gateOf{}
	gate.set(friend, true)
	h, pass := handshakesAt(gate)
	home := origin(ma.StringCast("/ip4/192.0.2.7/tcp/1"))
	h.met(home, friend)

	first := begun(h, 1000, address)
	if len(first) != strangersAtOnce {
		t.Errorf("%d strangers are in their handshake at once, want %d", len(first), strangersAtOnce)
	}
	pass(time.Hour)
	if more := begun(h, 1000, address); len(more) != 0 {
		t.Errorf("%d more while these are", len(more))
	}
	own := begun(h, 10, func(int) netip.Prefix { return home })
	if len(own) != 10 {
		t.Errorf("a friend begins %d of 10 handshakes beside a flood of strangers", len(own))
	}
	endAll(own, true)
	endAll(first, false)
	pass(time.Second)
	if next := begun(h, 1000, address); len(next) != strangersSecond {
		t.Errorf("%d strangers a second later, want %d", len(next), strangersSecond)
	}
	// Whose trust is gone has no such address any more.
	gate.set(friend, false)
	if end := h.begin(home); end != nil {
		t.Error("the address of a peer that was removed is still known")
	}
}

// One address has its share: that of a trusted peer more often, because who shares
// it with a stranger has to get in too.
func TestAnAddressHasItsShare(t *testing.T) {
	friend := newPeerID(t, 1, 1)
	gate := &gateOf{}
	gate.set(friend, true)
	for _, known := range []bool{false, true} {
		h, pass := handshakesAt(gate)
		one, most, second := address(1), originAtOnce, originASecond
		if known {
			h.met(one, friend)
			most, second = knownAtOnce, min(knownASecond, knownAtOnce)
		}
		only := func(int) netip.Prefix { return one }
		ends := begun(h, 1000, only)
		pass(time.Second)
		ends = append(ends, begun(h, 1000, only)...)
		if len(ends) != most {
			t.Errorf("known %t: %d handshakes at once, want %d", known, len(ends), most)
		}
		endAll(ends, false)
		pass(time.Second)
		ends = begun(h, 1000, only)
		if len(ends) != second {
			t.Errorf("known %t: %d a second later, want %d", known, len(ends), second)
		}
		if end := h.begin(address(2)); end == nil {
			t.Errorf("known %t: another address has no turn left", known)
		}
		// Those that turn out to be trusted took nothing from the others.
		endAll(ends, true)
		if again := begun(h, 1000, only); len(again) != second {
			t.Errorf("known %t: %d after trusted ones, want %d", known, len(again), second)
		}
	}
}

// Before tokens run out, packets have to prove their source address: nobody uses up
// a friend's tokens under the friend's address.
func TestSourceAddressIsProvedWhenTokensRunShort(t *testing.T) {
	friend := newPeerID(t, 1, 1)
	gate := &gateOf{}
	gate.set(friend, true)
	h, _ := handshakesAt(gate)
	rm, err := newResourceManager(gate.Allowed, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer rm.Close()
	rm.handshakes = h
	must := func(i int) bool {
		return rm.VerifySourceAddress(&net.UDPAddr{IP: address(i).Addr().AsSlice(), Port: 1})
	}
	h.met(address(1), friend)
	if must(1) || must(2) {
		t.Error("an address has to be proved although nothing is going on")
	}
	begun(h, strangersAtOnce/2+1, func(i int) netip.Prefix { return address(100 + i) })
	if must(1) || !must(2) {
		t.Errorf("half of what strangers share is gone: a friend proves its address %t, a stranger %t", must(1), must(2))
	}
	begun(h, originAtOnce/2+1, func(int) netip.Prefix { return address(1) })
	if !must(1) {
		t.Error("a friend's own tokens can be used up under its address")
	}
}

// Addresses are remembered within bounds: a stranger's goes before a friend's, and
// one peer has few, so that it pushes out nobody else's.
func TestAddressesAreRememberedWithinBounds(t *testing.T) {
	friend, rogue := newPeerID(t, 1, 1), newPeerID(t, 2, 2)
	gate := &gateOf{all: true}
	h, pass := handshakesAt(gate)
	home := origin(ma.StringCast("/ip4/192.0.2.7/tcp/1"))
	h.met(home, friend)
	for i := range maxOrigins + 100 {
		pass(time.Second)
		if end := h.begin(address(i)); end != nil {
			end(false)
		}
	}
	for i := range maxOrigins + 100 {
		pass(time.Second)
		h.met(address(i), rogue)
	}
	of := map[mesh.PeerID]int{}
	for _, s := range h.origins {
		of[s.by]++
	}
	if len(h.origins) > maxOrigins || of[rogue] != originsPerPeer || !h.known(home) {
		t.Errorf("%d addresses are remembered, %d of one peer, the friend's %t", len(h.origins), of[rogue], h.known(home))
	}
}

// asked is a gate that notes whom it was asked about: those who showed a key.
type asked struct {
	gateOf
	mu   sync.Mutex
	whom map[mesh.PeerID]bool
}

func (a *asked) Allowed(p mesh.PeerID) bool {
	a.mu.Lock()
	a.whom[p] = true
	a.mu.Unlock()
	return a.gateOf.Allowed(p)
}

func (a *asked) about() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.whom)
}

// Over both transports: without a token no key is shown, and a friend gets in all
// the same from an address where it was before.
func TestHandshakesAreRefusedBeforeTheyBegin(t *testing.T) {
	for _, transport := range []string{onTCP, onQUIC} {
		gate := &asked{whom: map[mesh.PeerID]bool{}}
		server := start(t, 1, gate, transport)
		h := server.host.Network().ResourceManager().(*entrance).handshakes
		const tokens, strangers = 2, 6
		drain := func(left float64) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.strangers = bucket{size: left, left: left, at: time.Now()}
		}
		dial := func(n *Net) error {
			n.Learn(server.ID(), server.Addrs())
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			return n.Connect(ctx, server.ID())
		}
		drain(tokens)
		refused := 0
		for i := range strangers {
			if err := dial(start(t, byte(10+i), &gateOf{all: true})); err != nil {
				refused++
			}
		}
		within(t, 30*time.Second, "the strangers with a token to show their keys", func() bool { return gate.about() == tokens })
		if refused < strangers-tokens {
			t.Errorf("%s: %d of %d strangers without a token were refused", transport, refused, strangers-tokens)
		}

		friend := start(t, 9, &gateOf{all: true})
		gate.set(friend.ID(), true)
		if err := dial(friend); err == nil {
			t.Errorf("%s: an address where nobody trusted was before needs no token", transport)
		}
		// A packet of the attempt before may still come, and take the token.
		within(t, 30*time.Second, "a friend with a token to get in", func() bool {
			drain(1)
			return dial(friend) == nil
		})
		at := netip.MustParsePrefix("127.0.0.1/32")
		within(t, 30*time.Second, "its address to be known", func() bool { return h.known(at) })
		drain(0)
		for range 3 {
			_ = friend.host.Network().ClosePeer(server.ID())
			if err := dial(friend); err != nil {
				t.Errorf("%s: a friend is held back by strangers: %v", transport, err)
			}
		}
	}
}
