package admission

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
	"peercompute/pkg/trust"
	"peercompute/pkg/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func peerID(t testing.TB, seed byte) mesh.PeerID {
	t.Helper()
	s := sha256.Sum256([]byte{seed})
	k, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(s[:]))
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

type clock struct{ atomic.Int64 }

func (c *clock) now() time.Time      { return time.UnixMilli(c.Load()) }
func (c *clock) add(d time.Duration) { c.Add(d.Milliseconds()) }
func newClock() *clock               { c := &clock{}; c.Store(1_800_000_000_000); return c }

type list map[mesh.PeerID]trust.Grant

func (l list) Get(p mesh.PeerID) (trust.Grant, bool) { g, ok := l[p]; return g, ok }

// bench is a gate that can be restarted over its file.
type bench struct {
	t     testing.TB
	path  string
	clock *clock
	trust list
	store *store.Store
	*Gate
	self, alice, bob mesh.PeerID
	max              int
}

func newBench(t testing.TB) *bench {
	b := &bench{
		t: t, path: filepath.Join(t.TempDir(), store.FileName), clock: newClock(), trust: list{},
		self: peerID(t, 1), alice: peerID(t, 2), bob: peerID(t, 3),
	}
	for _, p := range []mesh.PeerID{b.alice, b.bob} {
		b.trust[p] = trust.Grant{Peer: p, Allow: trust.Deploy, Quota: trust.Quota{Requests: 1 << 20}}
	}
	b.start()
	t.Cleanup(func() { b.store.Close() })
	return b
}

func (b *bench) start() {
	b.t.Helper()
	var err error
	if b.store, err = store.Open(b.path); err != nil {
		b.t.Fatal(err)
	}
	if b.Gate, err = NewGate(Config{Store: b.store, Trust: b.trust, Self: b.self, Now: b.clock.now, MaxNonces: b.max}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) restart() {
	b.t.Helper()
	if err := b.store.Close(); err != nil {
		b.t.Fatal(err)
	}
	b.start()
}

func (b *bench) request(from mesh.PeerID) *wire.Opened {
	n := wire.NewNonce()
	now := b.clock.now()
	return &wire.Opened{Signer: from, Digest: sha256.Sum256(n[:]), Request: wire.Request{
		Version: 1, Verb: wire.VerbDeploy,
		From: from, To: b.self, Incarnation: b.store.Incarnation(), Nonce: n,
		Issued: now.UnixMilli(), Expires: now.Add(wire.Lifetime).UnixMilli(),
	}}
}

func (b *bench) mustAdmit(o *wire.Opened) *Ticket {
	b.t.Helper()
	ticket, prior, err := b.Admit(context.Background(), o.Signer, o)
	if err != nil || prior != nil || ticket == nil {
		b.t.Fatalf("Admit = %v, %q, %v; want a ticket", ticket, prior, err)
	}
	return ticket
}

func TestRefusals(t *testing.T) {
	b := newBench(t)
	stranger := peerID(t, 9)
	for name, c := range map[string]struct {
		spoil func(*wire.Opened)
		conn  mesh.PeerID
		rule  string
	}{
		"sent by another than the signer": {conn: b.bob, rule: "request.signer"},
		"names another sender":            {spoil: func(o *wire.Opened) { o.From = b.bob }, rule: "request.from"},
		"for another peer":                {spoil: func(o *wire.Opened) { o.To = b.bob }, rule: "request.to"},
		"for another state file":          {spoil: func(o *wire.Opened) { o.Incarnation[0]++ }, rule: "request.incarnation"},
		"from a stranger":                 {spoil: func(o *wire.Opened) { o.From, o.Signer = stranger, stranger }, conn: stranger, rule: "trust"},
		"5 min 1 s old":                   {spoil: func(o *wire.Opened) { shift(o, -wire.MaxDrift-time.Second) }, rule: "time.window"},
		"5 min 1 s ahead":                 {spoil: func(o *wire.Opened) { shift(o, wire.MaxDrift+time.Second) }, rule: "time.window"},
		"expired":                         {spoil: func(o *wire.Opened) { o.Issued -= 120_000; o.Expires = o.Issued + 60_000 }, rule: "time.window"},
		"valid for too long":              {spoil: func(o *wire.Opened) { o.Expires++ }, rule: "time.window"},
		"expires before it is issued":     {spoil: func(o *wire.Opened) { o.Expires = o.Issued - 1 }, rule: "time.window"},
		"a made-up challenge":             {spoil: func(o *wire.Opened) { o.Challenge = []byte("0123456789abcdef") }, rule: "time.challenge"},
	} {
		o := b.request(b.alice)
		if c.spoil != nil {
			c.spoil(o)
		}
		conn := c.conn
		if conn == "" {
			conn = b.alice
		}
		ticket, prior, err := b.Admit(context.Background(), conn, o)
		if e := mesh.AsError(err); ticket != nil || prior != nil || e == nil || e.Rule != c.rule {
			t.Errorf("%s: ticket %v, prior %q, error %v; want a refusal by %s", name, ticket, prior, err, c.rule)
		}
	}
	for _, d := range []time.Duration{0, -wire.MaxDrift + time.Second, wire.MaxDrift - time.Second} {
		o := b.request(b.alice)
		shift(o, d)
		b.mustAdmit(o).Release()
	}
}

func shift(o *wire.Opened, d time.Duration) {
	o.Issued += d.Milliseconds()
	o.Expires += d.Milliseconds()
}

func TestRepetitionGetsTheFirstAnswer(t *testing.T) {
	b := newBench(t)
	ctx := context.Background()
	o := b.request(b.alice)
	runs := 0
	ticket := b.mustAdmit(o)
	if err := ticket.Finish(ctx, []byte("first"), func(*store.Tx) error { runs++; return nil }); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		ticket, prior, err := b.Admit(ctx, b.alice, o)
		if err != nil || ticket != nil || string(prior) != "first" {
			t.Fatalf("repetition %d: %v, %q, %v; want the first answer", i, ticket, prior, err)
		}
		b.restart()
	}
	other := *o
	other.Digest[0]++
	if _, _, err := b.Admit(ctx, b.alice, &other); mesh.KindOf(err) != mesh.Replayed {
		t.Fatalf("the nonce in another request: %v, want Replayed", err)
	}
	same := b.request(b.bob)
	same.Nonce = o.Nonce
	b.mustAdmit(same).Release() // nonces of two peers do not meet
	if runs != 1 {
		t.Fatalf("carried out %d times, want once", runs)
	}
}

func TestCrashBetweenRecordAndAct(t *testing.T) {
	b := newBench(t)
	o := b.request(b.alice)
	b.mustAdmit(o) // and then the process dies
	b.restart()
	if ticket, prior, err := b.Admit(context.Background(), b.alice, o); mesh.KindOf(err) != mesh.Interrupted || ticket != nil || prior != nil {
		t.Fatalf("after the crash: %v, %q, %v; want Interrupted", ticket, prior, err)
	}
}

func TestLostStateVoidsOldRequests(t *testing.T) {
	b := newBench(t)
	o := b.request(b.alice)
	b.mustAdmit(o).Release()
	b.path = filepath.Join(t.TempDir(), store.FileName)
	b.restart()
	if _, _, err := b.Admit(context.Background(), b.alice, o); mesh.KindOf(err) != mesh.Misdirected {
		t.Fatalf("a request for the lost state: %v, want Misdirected", err)
	}
}

func TestClockBackAcrossRestart(t *testing.T) {
	for _, back := range []time.Duration{10 * time.Minute, 24 * time.Hour} {
		b := newBench(t)
		o := b.request(b.alice)
		ctx := context.Background()
		if err := b.mustAdmit(o).Finish(ctx, []byte("x"), nil); err != nil {
			t.Fatal(err)
		}
		// Long after, its nonce is dropped; then the clock is set back to when it was fresh.
		b.clock.add(time.Hour)
		b.mustAdmit(b.request(b.bob)).Release()
		b.clock.add(-time.Hour - back)
		b.restart()
		if ticket, prior, err := b.Admit(ctx, b.alice, o); mesh.KindOf(err) != mesh.Stale {
			t.Fatalf("back by %s: %v, %q, %v; want Stale", back, ticket, prior, err)
		}
		// An honest peer whose clock agrees with ours, which is wrong, recovers by a challenge.
		honest := b.request(b.alice)
		if _, _, err := b.Admit(ctx, b.alice, honest); mesh.KindOf(err) != mesh.Stale {
			t.Fatalf("honest request: %v, want Stale first", err)
		}
		honest = b.request(b.alice)
		honest.Challenge = b.Challenge(b.alice)
		ticket := b.mustAdmit(honest)
		if err := ticket.Finish(ctx, []byte("y"), nil); err != nil {
			t.Fatal(err)
		}
		if _, prior, err := b.Admit(ctx, b.alice, honest); string(prior) != "y" || err != nil {
			t.Fatalf("repetition of a challenged request: %q, %v; want the first answer", prior, err)
		}
		again := b.request(b.alice)
		again.Challenge = honest.Challenge
		if _, _, err := b.Admit(ctx, b.alice, again); mesh.AsError(err) == nil || mesh.AsError(err).Rule != "time.challenge" {
			t.Fatalf("a challenge used twice: %v, want a refusal", err)
		}
		stolen := b.request(b.bob)
		stolen.Challenge = b.Challenge(b.alice)
		if _, _, err := b.Admit(ctx, b.bob, stolen); err == nil {
			t.Fatal("a challenge given to one peer serves another")
		}
	}
}

func TestChallengeLapses(t *testing.T) {
	b := newBench(t)
	o := b.request(b.alice)
	o.Challenge = b.Challenge(b.alice)
	b.clock.add(challengeLifetime + time.Second)
	if _, _, err := b.Admit(context.Background(), b.alice, o); mesh.KindOf(err) != mesh.Stale {
		t.Fatalf("a lapsed challenge: %v, want Stale", err)
	}
	for range 10 * maxChallenges {
		b.Challenge(b.alice)
	}
	if n := len(b.challenges[b.alice]); n > maxChallenges {
		t.Fatalf("%d challenges outstanding, want at most %d", n, maxChallenges)
	}
}

// A challenge stands for one request: another one with it is refused, also from the
// peer that it was given to, and so is another peer's.
func TestChallengeCountsOnce(t *testing.T) {
	b := newBench(t)
	o := b.request(b.alice)
	o.Challenge = b.Challenge(b.alice)
	theirs := b.request(b.bob)
	theirs.Challenge = o.Challenge
	if _, _, err := b.Admit(context.Background(), b.bob, theirs); mesh.AsError(err) == nil || mesh.AsError(err).Rule != "time.challenge" {
		t.Errorf("another peer's challenge: %v, want it refused by time.challenge", err)
	}
	b.mustAdmit(o).Release()
	next := b.request(b.alice)
	next.Challenge = o.Challenge
	if _, _, err := b.Admit(context.Background(), b.alice, next); mesh.AsError(err) == nil || mesh.AsError(err).Rule != "time.challenge" {
		t.Errorf("a challenge that was used: %v, want it refused by time.challenge", err)
	}
}

func TestCapacityRefusesAndEvictsNothing(t *testing.T) {
	b := newBench(t)
	b.max = 5
	b.restart()
	ctx := context.Background()
	var first []*wire.Opened
	for range 5 {
		o := b.request(b.alice)
		if err := b.mustAdmit(o).Finish(ctx, []byte("ok"), nil); err != nil {
			t.Fatal(err)
		}
		first = append(first, o)
	}
	if _, _, err := b.Admit(ctx, b.bob, b.request(b.bob)); mesh.KindOf(err) != mesh.Overloaded {
		t.Fatalf("the sixth: %v, want Overloaded", err)
	}
	for i, o := range first {
		if _, prior, err := b.Admit(ctx, b.alice, o); string(prior) != "ok" || err != nil {
			t.Fatalf("request %d was forgotten: %q, %v", i, prior, err)
		}
	}
	b.clock.add(2*wire.Lifetime + wire.MaxDrift)
	b.mustAdmit(b.request(b.bob)).Release() // the old ones could not pass any more
}

func TestRateLimit(t *testing.T) {
	b := newBench(t)
	g := b.trust[b.alice]
	g.Quota.Requests = 3
	b.trust[b.alice] = g
	for range 3 {
		b.mustAdmit(b.request(b.alice)).Release()
	}
	if _, _, err := b.Admit(context.Background(), b.alice, b.request(b.alice)); mesh.AsError(err) == nil || mesh.AsError(err).Rule != "grant.requests" {
		t.Fatalf("the fourth within a minute: %v, want grant.requests", err)
	}
	b.mustAdmit(b.request(b.bob)).Release() // the griefer alone is capped
	b.clock.add(time.Minute)
	b.mustAdmit(b.request(b.alice)).Release()
	delete(b.trust, b.bob)
	b.trust[b.bob] = trust.Grant{Peer: b.bob}
	if _, _, err := b.Admit(context.Background(), b.bob, b.request(b.bob)); err == nil {
		t.Fatal("a grant without quota lets a request through: zero must deny")
	}
}

func TestRemovedBetweenAdmissionAndEffect(t *testing.T) {
	b := newBench(t)
	ticket := b.mustAdmit(b.request(b.alice))
	delete(b.trust, b.alice)
	done := false
	err := ticket.Finish(context.Background(), []byte("x"), func(*store.Tx) error { done = true; return nil })
	if mesh.KindOf(err) != mesh.Untrusted || done {
		t.Fatalf("a removed peer's request took effect: %v, done %t", err, done)
	}
	ticket.Release()
}

func TestSameRequestManyTimesAtOnce(t *testing.T) {
	b := newBench(t)
	for range 30 { // what must not happen between two steps happens only sometimes
		o := b.request(b.alice)
		var executed atomic.Int32
		var wg sync.WaitGroup
		start := make(chan struct{})
		for range 32 {
			wg.Go(func() {
				<-start
				ticket, prior, err := b.Admit(context.Background(), b.alice, o)
				switch {
				case err != nil:
					t.Errorf("refused: %v", err)
				case ticket != nil:
					executed.Add(1)
					if err := ticket.Finish(context.Background(), []byte("one"), nil); err != nil {
						t.Error(err)
					}
				case string(prior) != "one":
					t.Errorf("prior answer %q", prior)
				}
			})
		}
		close(start)
		wg.Wait()
		if n := executed.Load(); n != 1 {
			t.Fatalf("executed %d times, want once", n)
		}
	}
}

// A copy that came past the first look, because it was taken before the first one
// was recorded, is not recorded again: neither while that one is acted upon nor after.
func TestLateCopyIsNotRecorded(t *testing.T) {
	b := newBench(t)
	first := b.mustAdmit(b.request(b.alice))
	copied := *first
	copied.done = make(chan struct{})
	now := b.clock.now()
	again := func() error { return b.record(t.Context(), &copied, now, now.Add(wire.Lifetime)) }
	if err := again(); !errors.Is(err, errKnown) {
		t.Errorf("while the first is acted upon: %v", err)
	}
	if err := first.Finish(t.Context(), []byte("one"), nil); err != nil {
		t.Fatal(err)
	}
	if err := again(); !errors.Is(err, errKnown) {
		t.Errorf("once the first is done: %v", err)
	}
}

// Whatever happens (repetitions, crashes before and after the effect, the clock
// moved either way, lost challenges), no request takes effect twice.
func TestAtMostOncePerNonce(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		b := newBench(t)
		ctx := context.Background()
		effects := map[wire.Nonce]int{}
		var sent []*wire.Opened
		r.Repeat(map[string]func(*rapid.T){
			"new": func(r *rapid.T) {
				o := b.request(rapid.SampledFrom([]mesh.PeerID{b.alice, b.bob}).Draw(r, "from"))
				if rapid.Bool().Draw(r, "challenged") {
					o.Challenge = b.Challenge(o.From)
				}
				sent = append(sent, o)
			},
			"send": func(r *rapid.T) {
				if len(sent) == 0 {
					r.Skip()
				}
				o := rapid.SampledFrom(sent).Draw(r, "request")
				ticket, _, err := b.Admit(ctx, o.Signer, o)
				if err != nil || ticket == nil {
					return
				}
				switch rapid.SampledFrom([]string{"finish", "crash before", "crash after"}).Draw(r, "then") {
				case "crash before":
					b.restart()
				case "crash after", "finish":
					if err := ticket.Finish(ctx, []byte("x"), func(*store.Tx) error { return nil }); err != nil {
						r.Fatal(err)
					}
					effects[o.Nonce]++
					if effects[o.Nonce] > 1 {
						r.Fatalf("nonce %x took effect twice", o.Nonce)
					}
				}
			},
			"clock": func(r *rapid.T) {
				b.clock.add(time.Duration(rapid.Int64Range(-86400, 86400).Draw(r, "seconds")) * time.Second)
			},
			"restart": func(*rapid.T) { b.restart() },
		})
		b.store.Close()
		b.start()
	})
}

func BenchmarkAdmit(bb *testing.B) {
	for _, senders := range []int{1, 16, 64} {
		bb.Run(fmt.Sprintf("senders=%d", senders), func(bb *testing.B) {
			b := newBench(bb)
			g := b.trust[b.alice]
			g.Quota.Requests = 1 << 40
			b.trust[b.alice] = g
			bb.SetParallelism(max(1, senders/2))
			bb.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					ticket, _, err := b.Admit(context.Background(), b.alice, b.request(b.alice))
					if err != nil {
						bb.Fatal(err)
					}
					if err := ticket.Finish(context.Background(), []byte("answer"), nil); err != nil {
						bb.Fatal(err)
					}
				}
			})
		})
	}
}
