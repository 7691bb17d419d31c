package security

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"peercompute/pkg/identity"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
	"peercompute/pkg/wire"
)

// replays is how many old requests are sent again (test plan, V3).
const replays = 100_000

// old is a request that was delivered once, and what came of it.
type old struct {
	data   []byte
	answer string // empty = the process died before it acted
}

// each runs fn for 0…n-1 on all processors.
func each(n int, fn func(int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 8 * runtime.GOMAXPROCS(0) { // more than processors: they share an fsync
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				fn(i)
			}
		})
	}
	wg.Wait()
}

// deliver hands a request to the target, which executes it if it is let through.
// executed counts that, on disk, as an effect is.
func (g *target) deliver(conn mesh.PeerID, data []byte, answer string) (prior string, executed bool, err error) {
	ticket, first, err := g.judge(conn, data)
	if ticket == nil {
		return string(first), false, err
	}
	err = ticket.Finish(context.Background(), []byte(answer), func(tx *store.Tx) error {
		return tx.Put(store.Workloads, append([]byte("effect/"), ticket.Nonce[:]...), []byte(answer))
	})
	return "", err == nil, err
}

// Requests are carried out once, and 100,000 replays carry out none again: to the
// same target and to another, on the sender's connection and on others', at once,
// after restarts, after deaths between record and effect, after the state was lost.
func TestReplays(t *testing.T) {
	t.Parallel()
	c := newClock()
	g, other := newTarget(t, c), newTarget(t, c)
	alice, bob := newKey(t), newKey(t)
	for _, each := range []*target{g, other} {
		each.trusts("alice", alice.ID)
		each.trusts("bob", bob.ID)
	}
	sent := make([]old, scale(2000))
	for i := range sent {
		sent[i] = old{data: seal(t, alice, g.request(alice, wire.VerbDeploy, bodies()[wire.VerbDeploy]))}
		if i%4 != 0 {
			sent[i].answer = fmt.Sprint("answer ", i)
		}
	}
	each(len(sent), func(i int) {
		if sent[i].answer == "" { // recorded, and then the process dies
			if ticket, _, err := g.judge(alice.ID, sent[i].data); ticket == nil || err != nil {
				t.Errorf("request %d: %v", i, err)
			}
			return
		}
		if _, ran, err := g.deliver(alice.ID, sent[i].data, sent[i].answer); !ran || err != nil {
			t.Errorf("request %d: carried out %t, %v", i, ran, err)
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	g.crash()
	backup, err := os.ReadFile(g.file())
	if err != nil {
		t.Fatal(err)
	}

	var total, second int64
	// again replays every request, n in all, and checks each outcome.
	again := func(name string, at *target, conn *identity.Key, n int, want func(o old, prior string, err error) bool) {
		t.Helper()
		var wrong atomic.Int64
		each(n, func(i int) {
			o := sent[i%len(sent)]
			prior, ran, err := at.deliver(conn.ID, o.data, "second")
			if ran {
				atomic.AddInt64(&second, 1)
			}
			if !want(o, prior, err) && wrong.Add(1) < 4 {
				t.Errorf("%s: request %d: prior %q, %v", name, i, prior, err)
			}
		})
		total += int64(n)
		t.Logf("%s: %d", name, n)
	}
	first := func(o old, prior string, err error) bool {
		if o.answer == "" {
			return mesh.KindOf(err) == mesh.Interrupted
		}
		return err == nil && prior == o.answer
	}
	refused := func(kind mesh.Kind, rule string) func(old, string, error) bool {
		return func(_ old, prior string, err error) bool {
			e := mesh.AsError(err)
			return e != nil && e.Kind == kind && e.Rule == rule && prior == ""
		}
	}
	step := scale(replays) / 10
	again("to the same peer, after a crash", g, alice, 2*step, first)
	again("on another's connection", g, bob, step, refused(mesh.Forged, "request.signer"))
	again("to another peer", other, alice, step, refused(mesh.Misdirected, "request.to"))
	for range 4 {
		g.crash()
		again("after one more crash", g, alice, step/4, first)
	}
	c.add(wire.Lifetime - time.Second)
	again("at the end of their life", g, alice, step, first)
	c.add(wire.MaxDrift + 2*time.Second)
	again("long after", g, alice, step, refused(mesh.Stale, "time.window"))
	// New requests push out what is remembered of the old ones; then the clock goes back.
	each(len(sent), func(i int) {
		if _, ran, err := g.deliver(bob.ID, seal(t, bob, g.request(bob, wire.VerbList, wire.List{})), "new"); !ran || err != nil {
			t.Errorf("a new request: %v", err)
		}
	})
	c.add(-wire.MaxDrift - wire.Lifetime)
	again("forgotten, and the clock set back", g, alice, step, refused(mesh.Stale, "time.window"))
	g.crash()
	again("the same after a crash", g, alice, step, refused(mesh.Stale, "time.window"))

	// The disk has one effect for each request that was carried out, old and new.
	if got, want := g.effects(), len(sent)-len(sent)/4+len(sent); got != want {
		t.Errorf("%d effects on disk, want %d", got, want)
	}

	// The state is rolled back to when the requests had just been made: that is noticed,
	// and by the owner's word accepted as another life.
	if err := errors.Join(g.store.Close(), os.WriteFile(g.file(), backup, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := g.open(); mesh.AsError(err) == nil || mesh.AsError(err).Rule != "state.latest" {
		t.Fatalf("a state that was rolled back: %v, want it refused by state.latest", err)
	}
	g.old = true
	if err := g.open(); err != nil {
		t.Fatal(err)
	}
	c.Store(newClock().Load()) // the requests would be fresh
	again("after the state was rolled back", g, alice, step, refused(mesh.Misdirected, "request.incarnation"))
	g.old = false

	// The state is lost, and the owner starts anew: alice is trusted again.
	if err := errors.Join(g.store.Close(), os.Remove(g.file()), g.open()); err != nil {
		t.Fatal(err)
	}
	g.trusts("alice", alice.ID)
	again("after the state was lost", g, alice, step, refused(mesh.Misdirected, "request.incarnation"))

	if second != 0 || total < int64(scale(replays)) {
		t.Errorf("%d second executions of %d replays, want 0 of %d", second, total, scale(replays))
	}
	t.Logf("%d second executions of %d", second, total)
}

// effects counts what was carried out, as the disk has it.
func (g *target) effects() (n int) {
	g.t.Helper()
	err := g.store.View(func(tx *store.Tx) error {
		return tx.Each(store.Workloads, []byte("effect/"), func(k, _ []byte) (bool, error) {
			if !strings.HasPrefix(string(k), "effect/") {
				return false, nil
			}
			n++
			return true, nil
		})
	})
	if err != nil {
		g.t.Fatal(err)
	}
	return n
}
