package member

import (
	"bytes"
	"context"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"peercompute/pkg/control"
	"peercompute/pkg/identity"
	"peercompute/pkg/mesh"
	"peercompute/pkg/peernet"
	"peercompute/pkg/trust"
	"peercompute/pkg/wire"
)

// node is a member that runs, with its local API.
type node struct {
	*api
	t testing.TB
}

func startNode(t testing.TB) node {
	t.Helper()
	home := shortDir(t)
	m, err := Open(Config{Home: home, Listen: []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"}, Role: "peer", Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	hooks := Hooks{
		Withdraw: func(context.Context, mesh.PeerID, bool) ([]mesh.WorkloadID, error) { return nil, nil },
		Halt:     func(context.Context) ([]mesh.WorkloadID, error) { return nil, nil },
	}
	serve(t, m, hooks)
	return node{&api{m: m, hooks: hooks}, t}
}

func (n node) addr() string { return n.m.Net.Addrs()[0] }

func (n node) open(d time.Duration) {
	n.t.Helper()
	if k, err := n.LetKnock(context.Background(), d); err != nil || k.Open != (d > 0) {
		n.t.Fatalf("knocking: %+v, %v", k, err)
	}
}

// knocking is a knock under way.
type knocking struct {
	waiting chan control.KnockEvent
	done    chan error
	peer    *control.Peer // once done
	cancel  context.CancelFunc
}

func (n node) knockAt(to node, as string) *knocking {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	n.t.Cleanup(cancel)
	k := &knocking{waiting: make(chan control.KnockEvent, 4), done: make(chan error, 1), cancel: cancel}
	go func() {
		k.done <- n.Knock(ctx, control.KnockAt{Addr: to.addr(), As: as, Name: "host"}, func(ev control.KnockEvent) error {
			if ev.Peer != nil {
				k.peer = ev.Peer
			} else {
				k.waiting <- ev
			}
			return nil
		})
	}()
	return k
}

func (k *knocking) waits(t testing.TB) string {
	t.Helper()
	select {
	case ev := <-k.waiting:
		return ev.Fingerprint
	case err := <-k.done:
		t.Fatalf("the knock ended: %v", err)
	case <-time.After(30 * time.Second):
		t.Fatal("the knock is not answered")
	}
	return ""
}

func (k *knocking) ends(t testing.TB) error {
	t.Helper()
	select {
	case err := <-k.done:
		return err
	case <-time.After(30 * time.Second):
		t.Fatal("the knock does not end")
		return nil
	}
}

func (n node) pending(t testing.TB, want int) []control.Pending {
	t.Helper()
	var k control.Knocking
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		k, _ = n.Knocks(context.Background())
		if len(k.Pending) == want {
			return k.Pending
		}
		if time.Now().After(end) {
			t.Fatalf("%d wait, want %d: %+v", len(k.Pending), want, k.Pending)
		}
	}
}

// What its owner takes from a peer while a knock there waits stays taken.
func TestAKnockRestoresNothing(t *testing.T) {
	host, guest := startNode(t), startNode(t)
	ctx := context.Background()
	host.open(time.Hour)
	all, none := []string{"deploy", "exec"}, []string{}
	if _, err := guest.AddPeer(ctx, control.AddPeer{ID: host.m.Key.ID.String(), Name: "host", Change: control.GrantChange{Allow: &all}}); err != nil {
		t.Fatal(err)
	}
	k := guest.knockAt(host, "alice")
	print := k.waits(t)
	if _, err := guest.AllowPeer(ctx, "host", control.GrantChange{Allow: &none}); err != nil {
		t.Fatal(err)
	}
	if _, err := host.ApproveKnock(ctx, print, control.Approve{}); err != nil {
		t.Fatal(err)
	}
	if err := k.ends(t); err != nil {
		t.Fatal(err)
	}
	if g, _ := guest.m.Trust.Get(host.m.Key.ID); g.Allow != 0 {
		t.Errorf("it may %v again", g.Allow.Names())
	}
}

// Two persons compare a fingerprint, one approves, and both machines trust each
// other: the knocker with what was granted, the other with nothing.
func TestKnockAndApprove(t *testing.T) {
	host, guest := startNode(t), startNode(t)
	ctx := context.Background()
	if err := guest.knockAt(host, "alice").ends(t); err == nil {
		t.Fatal("a stranger knocks though the owner did not let it")
	}
	host.open(time.Hour)
	k := guest.knockAt(host, "alice")
	print := k.waits(t)
	waiting := host.pending(t, 1)[0]
	if waiting.Fingerprint != print || waiting.Name != "alice" || waiting.ID != guest.m.Key.ID {
		t.Fatalf("the owner sees %+v, the knocker %s", waiting, print)
	}
	if host.m.Trust.Allowed(guest.m.Key.ID) || guest.m.Trust.Allowed(host.m.Key.ID) {
		t.Fatal("trusted before anybody approved")
	}
	// Less than the whole fingerprint approves nobody; nor does the name.
	for _, ref := range []string{"", print[:9], print[:len(print)-1], "alice", waiting.ID.String()[:20]} {
		if _, err := host.ApproveKnock(ctx, ref, control.Approve{}); mesh.KindOf(err) != mesh.NotFound {
			t.Errorf("approved by %q: %v", ref, err)
		}
	}
	allow := []string{"deploy"}
	p, err := host.ApproveKnock(ctx, strings.ToUpper(strings.ReplaceAll(print, "-", " ")), control.Approve{Change: control.GrantChange{Allow: &allow}})
	if err != nil || p.Name != "alice" || !slices.Equal(p.Grant.Allow, allow) {
		t.Fatalf("approved as %+v, %v", p, err)
	}
	if err := k.ends(t); err != nil || k.peer == nil || k.peer.Name != "host" || len(k.peer.Grant.Allow) != 0 {
		t.Fatalf("the knocker hears %v, and trusts %+v", err, k.peer)
	}
	if !host.m.Trust.Allowed(guest.m.Key.ID) || !guest.m.Trust.Allowed(host.m.Key.ID) {
		t.Fatal("they do not trust each other")
	}
	host.pending(t, 0)
	// It is a peer like any other at once: its connection counts as one.
	if _, err := guest.m.Client.Ping(ctx, host.m.Key.ID); err != nil {
		t.Fatal(err)
	}
	// Who is trusted already needs no second answer.
	host.open(0)
	again := guest.knockAt(host, "alice")
	if err := again.ends(t); err != nil {
		t.Errorf("a trusted peer knocks: %v", err)
	}
}

// A refusal is told, remembered, and costs the knocker nothing else.
func TestKnockAndDeny(t *testing.T) {
	host, guest := startNode(t), startNode(t)
	host.open(time.Hour)
	k := guest.knockAt(host, "alice")
	print := k.waits(t)
	if _, err := host.DenyKnock(context.Background(), print); err != nil {
		t.Fatal(err)
	}
	if err := k.ends(t); mesh.KindOf(err) != mesh.Denied || mesh.AsError(err).Rule != "knock.denied" {
		t.Fatalf("the knocker hears %v, want Denied", err)
	}
	host.pending(t, 0)
	err := guest.knockAt(host, "alice").ends(t)
	if e := mesh.AsError(err); e.Rule != "knock.denied" {
		t.Fatalf("it knocks again and hears %v", err)
	}
	host.pending(t, 0)
	if host.m.Trust.Allowed(guest.m.Key.ID) || guest.m.Trust.Allowed(host.m.Key.ID) || len(guest.m.Trust.All()) != 0 {
		t.Fatal("a refusal leaves trust behind")
	}
}

// One who leaves waits no more; knocking that ends sends all away, lockdown too.
func TestKnockersLeave(t *testing.T) {
	host, one, two := startNode(t), startNode(t), startNode(t)
	ctx := context.Background()
	host.open(time.Hour)
	k := one.knockAt(host, "one")
	k.waits(t)
	k.cancel()
	if err := k.ends(t); err == nil {
		t.Fatal("an interrupted knock succeeds")
	}
	host.pending(t, 0)
	k = two.knockAt(host, "two")
	k.waits(t)
	host.open(0)
	if err := k.ends(t); mesh.AsError(err).Rule != "knock.closed" {
		t.Errorf("knocking ended, and the knocker hears %v", err)
	}
	host.open(time.Hour)
	k = two.knockAt(host, "two")
	k.waits(t)
	if _, err := host.Lockdown(ctx); err != nil {
		t.Fatal(err)
	}
	if err := k.ends(t); err == nil {
		t.Error("a knock outlives lockdown")
	}
	host.pending(t, 0)
	if _, up := host.m.Net.Connected(two.m.Key.ID); up {
		t.Error("the one who knocked is still connected under lockdown")
	}
}

// While knocking is allowed or an invite is open, a stranger reaches the protocol
// for that and nothing else: every protocol that the host has is tried.
func TestAGuestReachesOneProtocol(t *testing.T) {
	for _, c := range []struct {
		name            string
		knocking, token bool
	}{{"closed", false, false}, {"knocking", true, false}, {"an invite", false, true}, {"both", true, true}} {
		t.Run(c.name, func(t *testing.T) {
			host := startNode(t)
			ctx := context.Background()
			if c.knocking {
				host.open(time.Hour)
			}
			if c.token {
				if _, err := host.Invite(ctx, control.NewInvite{TTL: time.Hour, Uses: 1}); err != nil {
					t.Fatal(err)
				}
			}
			protocols := host.m.Net.Protocols()
			for _, want := range []string{wire.ProtocolJoin, wire.ProtocolKnock, wire.ProtocolHello, wire.ProtocolRequest} {
				if !slices.Contains(protocols, want) {
					t.Fatalf("the host has no %s, only %v", want, protocols)
				}
			}
			tried := 0
			key, guest := outsider(t)
			guest.Learn(host.m.Key.ID, host.m.Net.Addrs())
			for _, proto := range protocols {
				if !strings.HasPrefix(proto, "/peercompute/") {
					continue // libp2p's own: identify and ping, which carry nothing of ours
				}
				tried++
				got := offer(t, guest, host, proto, opening(t, key, host.m.Key.ID, proto))
				want := c.knocking && proto == wire.ProtocolKnock || c.token && proto == wire.ProtocolJoin
				if got != want {
					t.Errorf("a guest gets an answer of %s: %t, want %t", proto, got, want)
				}
			}
			if tried < 4 {
				t.Errorf("only %d protocols were tried", tried)
			}
			if host.m.Trust.Allowed(key.ID) {
				t.Error("the guest is trusted")
			}
			for _, proto := range protocols {
				if !strings.HasPrefix(proto, "/peercompute/") && !slices.Contains([]string{"/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0"}, proto) {
					t.Errorf("the host speaks %s, which nobody thought of", proto)
				}
			}
		})
	}
}

// opening is what a peer says first in a protocol, as well formed as a stranger
// can make it. Each is one to which a peer that is let in gets an answer.
func opening(t testing.TB, key *identity.Key, to mesh.PeerID, proto string) []byte {
	t.Helper()
	var data []byte
	var err error
	switch proto {
	case wire.ProtocolJoin:
		data, err = wire.SealJoin(key.Private, wire.NewJoin(wire.Invite{Peer: to}, key.ID, "eve", nil))
	case wire.ProtocolKnock:
		data, err = wire.SealKnock(key.Private, wire.NewKnock(key.ID, to, "eve", nil))
	default:
		return make([]byte, 64) // a nonce, or an empty message and more
	}
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := wire.WriteMessage(&b, data); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// offer says what opens a protocol, and reports whether a single byte came back.
func offer(t testing.TB, guest *peernet.Net, host node, proto string, say []byte) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s, err := guest.Open(ctx, host.m.Key.ID, proto)
	if err != nil {
		return false
	}
	defer s.Reset()
	s.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := s.Write(say); err != nil {
		return false
	}
	_, err = io.ReadFull(s, make([]byte, 1))
	return err == nil
}

// The places of those who wait are few, and the rest are told so.
func TestTheWaitingRoomIsBounded(t *testing.T) {
	r := newRoom()
	first := &knocker{Pending: control.Pending{ID: "first", Fingerprint: "0000-0000-0000-0000"}, answer: make(chan error, 1)}
	if err := r.enter(first); err != nil {
		t.Fatal(err)
	}
	for i := range maxKnocking - 1 {
		if err := r.enter(&knocker{Pending: control.Pending{ID: mesh.PeerID(rune('a' + i))}, answer: make(chan error, 1)}); err != nil {
			t.Fatal(err)
		}
	}
	late := &knocker{Pending: control.Pending{ID: "late"}, answer: make(chan error, 1)}
	if err := r.enter(late); mesh.KindOf(err) != mesh.Overloaded {
		t.Errorf("one too many: %v", err)
	}
	// The same one again takes its own place, and the earlier knock ends.
	again := &knocker{Pending: first.Pending, answer: make(chan error, 1)}
	if err := r.enter(again); err != nil {
		t.Errorf("the same one again: %v", err)
	}
	select {
	case err := <-first.answer:
		if mesh.KindOf(err) != mesh.Conflict {
			t.Errorf("the earlier knock hears %v", err)
		}
	default:
		t.Error("the earlier knock hears nothing")
	}
	r.leave(first)
	if got, err := r.find("0000-0000-0000-0000"); err != nil || got != again {
		t.Errorf("the earlier knock took the later one away: %v", err)
	}
	r.leave(again)
	if err := r.enter(late); err != nil {
		t.Error(err)
	}
}

// What a stranger says of itself is kept only if it is well formed.
func TestWhatAKnockerSays(t *testing.T) {
	host := startNode(t)
	host.open(time.Hour)
	guest := startNode(t)
	for name, want := range map[string]string{"Alice": "alice", "\x1b[31mred": "", "": "", strings.Repeat("a", 100): ""} {
		k := guest.knockAt(host, name)
		k.waits(t)
		if got := host.pending(t, 1)[0].Name; got != want {
			t.Errorf("one that calls itself %q is shown as %q, want %q", name, got, want)
		}
		k.cancel()
		_ = k.ends(t)
		host.pending(t, 0)
	}
	if got := cleanAddrs([]string{"junk", "/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.1/tcp/1"}); len(got) != 1 {
		t.Errorf("addresses are read as %v", got)
	}
	if d := trust.MaxKnocking; d > 24*time.Hour {
		t.Errorf("strangers may knock for %s", d)
	}
}
