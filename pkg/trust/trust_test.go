package trust

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/goleak"

	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func peerID(t testing.TB, n uint32) mesh.PeerID {
	t.Helper()
	s := sha256.Sum256(binary.BigEndian.AppendUint32(nil, n))
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

type fixture struct {
	t    testing.TB
	path string
	*List
}

func open(t testing.TB) *fixture {
	f := &fixture{t: t, path: filepath.Join(t.TempDir(), store.FileName)}
	f.reopen()
	t.Cleanup(func() { f.store.Close() })
	return f
}

func (f *fixture) reopen() {
	f.t.Helper()
	if f.List != nil {
		f.store.Close()
	}
	st, err := store.Open(f.path)
	if err != nil {
		f.t.Fatal(err)
	}
	l, err := Open(st, peerID(f.t, 0), time.Now)
	if err != nil {
		f.t.Fatal(err)
	}
	f.List = l
}

func (f *fixture) put(n uint32, name string, a Allow) {
	f.t.Helper()
	if err := f.Put(context.Background(), Grant{Peer: peerID(f.t, n), Name: name, Allow: a, Quota: DefaultQuota()}); err != nil {
		f.t.Fatal(err)
	}
}

func TestLifeOfAGrant(t *testing.T) {
	f := open(t)
	alice := peerID(t, 1)
	if f.Allowed(alice) {
		t.Fatal("a stranger is allowed")
	}
	f.put(1, "alice", Deploy)
	f.put(1, "alice", Deploy|Observe)
	f.put(2, "bob", Route)
	f.reopen()
	g, ok := f.Get(alice)
	if !ok || g.Allow != Deploy|Observe || !reflect.DeepEqual(g.Quota, DefaultQuota()) {
		t.Fatalf("after a restart alice has %+v, %t", g, ok)
	}
	if _, err := f.Remove(context.Background(), alice, false); err != nil {
		t.Fatal(err)
	}
	if f.Allowed(alice) {
		t.Fatal("a removed peer is allowed")
	}
	f.reopen()
	if f.Allowed(alice) || !f.Allowed(peerID(t, 2)) {
		t.Fatal("the removal did not survive a restart, or took bob along")
	}
	if _, err := f.Remove(context.Background(), alice, false); mesh.KindOf(err) != mesh.NotFound {
		t.Fatalf("removing twice: %v, want NotFound", err)
	}
}

func TestUnfinishedRemovalIsRemembered(t *testing.T) {
	f := open(t)
	f.put(1, "alice", Deploy)
	if _, err := f.Remove(context.Background(), peerID(t, 1), true); err != nil {
		t.Fatal(err)
	}
	f.reopen()
	left := map[mesh.PeerID]bool{}
	if err := f.Unfinished(func(p mesh.PeerID, keep bool) { left[p] = keep }); err != nil || !left[peerID(t, 1)] {
		t.Fatalf("unfinished: %v, %v; want alice with keep", left, err)
	}
	if err := f.Finished(context.Background(), peerID(t, 1)); err != nil {
		t.Fatal(err)
	}
	if err := f.Unfinished(func(mesh.PeerID, bool) { t.Error("a finished removal is listed") }); err != nil {
		t.Fatal(err)
	}
}

// Who is trusted anew is not what a removal that was cut short would end at the next start.
func TestTrustedAnewEndsARemoval(t *testing.T) {
	f := open(t)
	f.put(1, "alice", Deploy)
	if _, err := f.Remove(context.Background(), peerID(t, 1), false); err != nil {
		t.Fatal(err)
	}
	f.put(1, "alice", Deploy)
	f.reopen()
	if err := f.Unfinished(func(mesh.PeerID, bool) { t.Error("her removal is still to be finished") }); err != nil {
		t.Fatal(err)
	}
}

func TestPutRefuses(t *testing.T) {
	f := open(t)
	f.put(1, "alice", Deploy)
	for name, g := range map[string]Grant{
		"own ID":         {Peer: peerID(t, 0), Name: "me"},
		"name in use":    {Peer: peerID(t, 2), Name: "alice"},
		"reserved name":  {Peer: peerID(t, 2), Name: "self"},
		"bad name":       {Peer: peerID(t, 2), Name: "Bob!"},
		"negative quota": {Peer: peerID(t, 2), Name: "bob", Quota: Quota{Workloads: -1}},
		"no key in ID":   {Peer: "garbage", Name: "bob"},
		"unknown bit":    {Peer: peerID(t, 2), Name: "bob", Allow: 128},
	} {
		if err := f.Put(context.Background(), g); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if n := len(f.All()); n != 1 {
		t.Fatalf("%d grants after the refusals, want 1", n)
	}
}

func TestFind(t *testing.T) {
	f := open(t)
	f.put(1, "alice", Deploy)
	f.put(2, "bob", Deploy)
	alice := peerID(t, 1)
	for _, ref := range []string{"alice", alice.String(), alice.String()[:20]} {
		if g, err := f.Find(ref); err != nil || g.Peer != alice {
			t.Errorf("Find(%q) = %v, %v", ref, g.Peer, err)
		}
	}
	for ref, kind := range map[string]mesh.Kind{"12D3KooW": mesh.Conflict, "carol": mesh.NotFound, "": mesh.NotFound} {
		if _, err := f.Find(ref); mesh.KindOf(err) != kind {
			t.Errorf("Find(%q): %v, want %s", ref, err, kind)
		}
	}
	if f.Name(peerID(t, 0)) != "self" || f.Name(alice) != "alice" || f.Name(peerID(t, 7)) != peerID(t, 7).String() {
		t.Error("names are not local names")
	}
}

// Whatever is done to the log, it is noticed and nobody is trusted.
func TestDamagedLogIsRefused(t *testing.T) {
	key := func(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
	for name, spoil := range map[string]func(tx *store.Tx) error{
		"changed": func(tx *store.Tx) error { return replace(tx, key(2), `"deploy"`, `"route"`) },
		"dropped": func(tx *store.Tx) error { return tx.Delete(store.TrustLog, key(2)) },
		"cut":     func(tx *store.Tx) error { return tx.Delete(store.TrustLog, key(3)) },
		"all gone": func(tx *store.Tx) error {
			for n := range uint64(3) {
				if err := tx.Delete(store.TrustLog, key(n+1)); err != nil {
					return err
				}
			}
			return nil
		},
		"swapped": func(tx *store.Tx) error {
			a, b := string(tx.Get(store.TrustLog, key(1))), string(tx.Get(store.TrustLog, key(2)))
			if err := tx.Put(store.TrustLog, key(1), []byte(b)); err != nil {
				return err
			}
			return tx.Put(store.TrustLog, key(2), []byte(a))
		},
		"not JSON":     func(tx *store.Tx) error { return tx.Put(store.TrustLog, key(2), []byte("{")) },
		"head changed": func(tx *store.Tx) error { return tx.PutJSON(store.Meta, keyHead, head{3, "00"}) },
	} {
		f := open(t)
		f.put(1, "alice", Deploy)
		f.put(2, "bob", Deploy)
		f.put(3, "carol", Deploy)
		if err := f.store.Update(context.Background(), spoil); err != nil {
			t.Fatal(err)
		}
		if l, err := Open(f.store, peerID(t, 0), time.Now); mesh.KindOf(err) != mesh.Invalid || l != nil {
			t.Errorf("%s: opened as %v, %v; want it refused", name, l, err)
		} else if mesh.AsError(err).Hint == "" {
			t.Errorf("%s: the refusal says no next step", name)
		}
	}
}

func replace(tx *store.Tx, k []byte, old, new string) error {
	v := string(tx.Get(store.TrustLog, k))
	return tx.Put(store.TrustLog, k, []byte(strings.Replace(v, old, new, 1)))
}

func TestConcurrentChanges(t *testing.T) {
	f := open(t)
	var wg sync.WaitGroup
	for n := uint32(1); n <= 30; n++ {
		wg.Go(func() {
			id := peerID(t, n)
			if err := f.Put(context.Background(), Grant{Peer: id, Name: "p-" + strings.ToLower(id.String()[45:]), Allow: Deploy}); err != nil {
				t.Error(err)
			}
			if n%2 == 0 {
				if _, err := f.Remove(context.Background(), id, false); err != nil {
					t.Error(err)
				}
			}
			f.Allowed(id)
		})
	}
	wg.Wait()
	f.reopen()
	if n := len(f.All()); n != 15 {
		t.Fatalf("%d grants, want 15", n)
	}
}

// Each edit begins with what the one before made.
func TestEditsDoNotMeet(t *testing.T) {
	f := open(t)
	f.put(1, "alice", Deploy)
	var wg sync.WaitGroup
	const n = 20
	for range n {
		wg.Go(func() {
			_, err := f.Edit(context.Background(), peerID(t, 1), func(g Grant, known bool) (Grant, error) {
				g.Quota.Names++
				return g, nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if g, _ := f.Get(peerID(t, 1)); g.Quota.Names != DefaultQuota().Names+n {
		t.Errorf("%d names, want %d more than %d", g.Quota.Names, n, DefaultQuota().Names)
	}
	refusal := errors.New("no")
	if _, err := f.Edit(context.Background(), peerID(t, 2), func(g Grant, known bool) (Grant, error) { return g, refusal }); !errors.Is(err, refusal) || f.Listed(peerID(t, 2)) {
		t.Errorf("an edit that refused: %v", err)
	}
}

// Whether the node is locked down is in memory what it is on disk, whoever comes last.
func TestLockAndUnlockAtOnce(t *testing.T) {
	f := open(t)
	ctx := context.Background()
	for range 100 {
		var wg sync.WaitGroup
		for _, do := range []func() error{
			func() error { _, err := f.LockAnew(ctx, "doubt"); return err },
			func() error { return f.Unlock(ctx) },
		} {
			wg.Go(func() {
				if err := do(); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		_, locked := f.Locked()
		err := f.store.View(func(tx *store.Tx) error {
			onDisk, err := loadLockdown(tx)
			if (onDisk != nil) != locked {
				t.Fatalf("locked on disk: %t, in memory: %t", onDisk != nil, locked)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestZeroAllowsNothing(t *testing.T) {
	var a Allow
	for _, p := range []Allow{Observe, Deploy, Migrate, Route, Publish, 0} {
		if a.Has(p) {
			t.Errorf("the zero set has %v", p.Names())
		}
	}
	if (Deploy | Route).Has(Deploy|Publish) || !(Deploy | Route).Has(Route) {
		t.Error("Has does not ask for every permission")
	}
}

func TestLockdownDeniesEverybodyAcrossRestarts(t *testing.T) {
	f := open(t)
	f.put(1, "alice", Deploy)
	i := invite(t, f, 1)
	ctx := context.Background()
	first, err := f.Lock(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, ok := f.Get(peerID(t, 1)); ok || f.Allowed(peerID(t, 1)) || f.Expecting() {
			t.Fatal("somebody is allowed under lockdown")
		}
		if _, _, err := f.Redeem(ctx, peerID(t, 2), "bob", nil, knows(i.Secret)); err == nil {
			t.Fatal("somebody joins under lockdown")
		}
		if at, locked := f.Locked(); !locked || !at.Since.Equal(first.Since) {
			t.Fatalf("locked %t since %v, want since %v", locked, at.Since, first.Since)
		}
		f.reopen()
	}
	if f.Name(peerID(t, 1)) != "alice" || len(f.All()) != 1 {
		t.Fatal("lockdown forgot the list")
	}
	if err := f.Unlock(ctx); err != nil {
		t.Fatal(err)
	}
	f.reopen()
	if !f.Allowed(peerID(t, 1)) {
		t.Fatal("after unlock the list does not count")
	}
}
