// Package security attacks the product as the threat model says: forged, replayed
// and stolen requests, strangers, a man in the middle, names that change hands,
// clocks that move. Each test says in figures what passes.
package security

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"peercompute/pkg/admission"
	"peercompute/pkg/identity"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
	"peercompute/pkg/trust"
	"peercompute/pkg/wire"
	"peercompute/test/internal/testmesh"
)

func TestMain(m *testing.M) {
	if home := os.Getenv(nodeEnv); home != "" {
		if err := runNode(home); err != nil {
			fmt.Fprintln(os.Stderr, "node:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if to := os.Getenv(floodEnv); to != "" {
		if err := runFlood(to); err != nil {
			fmt.Fprintln(os.Stderr, "flood:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(testmesh.Main(m))
}

// scale is a figure of the test plan, or a part of it where each step costs many
// times more.
func scale(full int) int {
	if raceEnabled || testing.Short() {
		return full / 20
	}
	return full
}

// clock is a wall clock that the test sets.
type clock struct{ atomic.Int64 } // Unix ms

func newClock() *clock                  { c := &clock{}; c.Store(1_800_000_000_000); return c }
func (c *clock) now() time.Time         { return time.UnixMilli(c.Load()) }
func (c *clock) elapsed() time.Duration { return 0 } // however long the machine takes, nothing but add is time that passes
func (c *clock) add(d time.Duration)    { c.Add(d.Milliseconds()) }

// target judges envelopes as a node does: real key, state file, trust list and
// gate, and no network in between, so that a million are soon judged.
type target struct {
	t     testing.TB
	home  string
	old   bool // its owner says that an older state will do
	clock *clock
	key   *identity.Key
	store *store.Store
	trust *trust.List
	gate  *admission.Gate
}

func newTarget(t testing.TB, c *clock) *target {
	t.Helper()
	g := &target{t: t, home: t.TempDir(), clock: c, key: newKey(t)}
	if err := g.open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.store.Close() })
	return g
}

func (g *target) file() string { return filepath.Join(g.home, store.FileName) }

func (g *target) open() (err error) {
	open := store.Open
	if g.old {
		open = store.OpenOld
	}
	if g.store, err = open(g.file()); err != nil {
		return err
	}
	if err := g.store.Bind(context.Background(), g.key.ID); err != nil {
		return err
	}
	if g.trust, err = trust.Open(g.store, g.key.ID, g.clock.now); err != nil {
		return err
	}
	g.gate, err = admission.NewGate(admission.Config{Store: g.store, Trust: g.trust, Self: g.key.ID, Now: g.clock.now, Elapsed: g.clock.elapsed})
	return err
}

// crash is what kill -9 leaves: the file as it is, and nothing of what was in memory.
func (g *target) crash() {
	g.t.Helper()
	if err := errors.Join(g.store.Close(), g.open()); err != nil {
		g.t.Fatal(err)
	}
}

// trusts lets k do everything, as often as it likes, so that no quota refuses what
// another rule should.
func (g *target) trusts(name string, ids ...mesh.PeerID) {
	g.t.Helper()
	for _, id := range ids {
		err := g.trust.Put(context.Background(), trust.Grant{
			Peer: id, Name: name, Allow: trust.Observe | trust.Deploy | trust.Migrate | trust.Route | trust.Publish, Quota: trust.Quota{Requests: 1 << 30, Workloads: 1 << 20},
		})
		if err != nil {
			g.t.Fatal(err)
		}
	}
}

// judge is the path of an envelope that arrives on conn's connection.
func (g *target) judge(conn mesh.PeerID, data []byte) (*admission.Ticket, []byte, error) {
	o, err := wire.OpenRequest(data)
	if err != nil {
		return nil, nil, err
	}
	return g.gate.Admit(context.Background(), conn, o)
}

// request is one that k may well make now.
func (g *target) request(k *identity.Key, verb wire.Verb, body any) wire.Request {
	g.t.Helper()
	raw, err := wire.Marshal(body)
	if err != nil {
		g.t.Fatal(err)
	}
	now := g.clock.now()
	return wire.Request{
		Version: wire.Version, Verb: verb, From: k.ID, To: g.key.ID, Incarnation: g.store.Incarnation(), Nonce: wire.NewNonce(),
		Issued: now.UnixMilli(), Expires: now.Add(wire.Lifetime).UnixMilli(), Body: raw,
	}
}

func newKey(t testing.TB) *identity.Key {
	t.Helper()
	k, err := identity.Create(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func seal(t testing.TB, k *identity.Key, r wire.Request) []byte {
	t.Helper()
	data, err := wire.SealRequest(k.Private, r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func private(t testing.TB, k *identity.Key) ed25519.PrivateKey {
	t.Helper()
	raw, err := k.Private.Raw()
	if err != nil {
		t.Fatal(err)
	}
	return ed25519.PrivateKey(raw)
}

// figuresEnv names a file to which measured figures are appended, one JSON object a line.
const figuresEnv = "PEERCOMPUTE_FIGURES"

// figure records a measured figure that depends on the machine, and so is not judged.
func figure(t testing.TB, name string, value float64) {
	t.Helper()
	file := os.Getenv(figuresEnv)
	if file == "" {
		return
	}
	line, err := json.Marshal(map[string]any{"test": t.Name(), "name": name, "value": value})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(append(line, '\n'))
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// within polls until ok holds, and fails the test after limit.
func within(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s", what, limit)
		}
	}
}
