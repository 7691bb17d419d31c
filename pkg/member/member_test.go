package member

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"peercompute/pkg/control"
	"peercompute/pkg/identity"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

func open(t *testing.T, home string, edit ...func(*Config)) (*Member, error) {
	t.Helper()
	cfg := Config{Home: home, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Role: "peer", Log: slog.New(slog.DiscardHandler)}
	for _, f := range edit {
		f(&cfg)
	}
	return Open(cfg)
}

func mustOpen(t *testing.T, home string) *Member {
	t.Helper()
	m, err := open(t, home)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// shortDir is a temporary directory whose paths are short enough for sockets.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func otherPeer(t *testing.T) mesh.PeerID {
	t.Helper()
	k, err := identity.Create(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return k.ID
}

func TestHomeIsPrivateAndExclusive(t *testing.T) {
	home := filepath.Join(t.TempDir(), "home")
	m := mustOpen(t, home)
	if info, err := os.Stat(home); err != nil || info.Mode().Perm() != 0o700 {
		t.Fatalf("the home has mode %v, %v; want 0700", info.Mode(), err)
	}
	if _, err := open(t, home); mesh.KindOf(err) != mesh.Conflict {
		t.Fatalf("a second node in the same home: %v, want Conflict", err)
	}
	id := m.Key.ID
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m = mustOpen(t, home)
	defer m.Close()
	if m.Key.ID != id {
		t.Fatal("the node has another identity after a restart")
	}
}

// Key and state belong together: either without the other, or with another's,
// is refused with a next step.
func TestPartialLossIsRefused(t *testing.T) {
	for name, spoil := range map[string]func(home string) error{
		"state lost": func(home string) error { return os.Remove(filepath.Join(home, store.FileName)) },
		"key lost":   func(home string) error { return os.Remove(filepath.Join(home, identity.KeyFile)) },
		"another's key": func(home string) error {
			return errors.Join(os.Remove(filepath.Join(home, identity.KeyFile)), func() error { _, err := identity.Create(home); return err }())
		},
		"state cut":   func(home string) error { return os.Truncate(filepath.Join(home, store.FileName), 100) },
		"state empty": func(home string) error { return os.Truncate(filepath.Join(home, store.FileName), 0) },
	} {
		home := t.TempDir()
		if err := mustOpen(t, home).Close(); err != nil {
			t.Fatal(err)
		}
		if err := spoil(home); err != nil {
			t.Fatal(err)
		}
		m, err := open(t, home)
		if err == nil {
			m.Close()
			t.Errorf("%s: the node starts", name)
		} else if e := mesh.AsError(err); e.Hint == "" {
			t.Errorf("%s: %v says no next step", name, err)
		}
	}
	home := t.TempDir()
	m := mustOpen(t, home)
	inc, id := m.Store.Incarnation(), m.Key.ID
	m.Close()
	if err := os.Remove(filepath.Join(home, store.FileName)); err != nil {
		t.Fatal(err)
	}
	m, err := open(t, home, func(c *Config) { c.NewState = true })
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if m.Key.ID != id || m.Store.Incarnation() == inc {
		t.Error("a new state must keep the key and have another incarnation")
	}
}

// A state from a backup is taken only on the owner's word, and requests that were
// signed for it are void from then on; the status says so.
func TestOldStateNeedsTheOwnersWord(t *testing.T) {
	home := t.TempDir()
	m := mustOpen(t, home)
	a := &api{m: m}
	peer := otherPeer(t)
	if _, err := a.AddPeer(context.Background(), control.AddPeer{ID: peer.String(), Name: "bob"}); err != nil {
		t.Fatal(err)
	}
	inc := m.Store.Incarnation()
	m.Close()
	path := filepath.Join(home, store.FileName)
	backup, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	m = mustOpen(t, home)
	if _, err := m.Trust.Remove(context.Background(), peer, false); err != nil {
		t.Fatal(err)
	}
	m.Close()
	if err := os.WriteFile(path, backup, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, home); mesh.AsError(err) == nil || mesh.AsError(err).Rule != "state.latest" {
		t.Fatalf("a state in which a removed peer is trusted: %v, want it refused by state.latest", err)
	}
	m, err = open(t, home, func(c *Config) { c.OldState = true })
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	s, err := (&api{m: m}).Status(context.Background())
	if err != nil || m.Store.Incarnation() == inc || len(s.Warnings) != 1 || !strings.Contains(s.Warnings[0], "--old-state") {
		t.Errorf("accepted with the incarnation %x (was %x), warnings %q, %v", m.Store.Incarnation(), inc, s.Warnings, err)
	}
}

// A removal that a crash cut short is carried through at the next start.
func TestRemovalIsResumed(t *testing.T) {
	home := shortDir(t)
	m := mustOpen(t, home)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	peer := otherPeer(t)
	a := &api{m: m, hooks: Hooks{Withdraw: func(context.Context, mesh.PeerID, bool) ([]mesh.WorkloadID, error) {
		return nil, errors.New("the process dies here")
	}}}
	if _, err := a.AddPeer(ctx, control.AddPeer{ID: peer.String(), Name: "bob"}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.RemovePeer(ctx, "bob", false); err == nil {
		t.Fatal("the removal reports success although it was cut short")
	}
	if m.Trust.Allowed(peer) {
		t.Fatal("the peer is still allowed")
	}
	m.Close()

	m = mustOpen(t, home)
	defer m.Close()
	var resumed []mesh.PeerID
	done := make(chan error, 1)
	go func() {
		done <- m.Run(ctx, nil, nil, Hooks{Withdraw: func(_ context.Context, p mesh.PeerID, keep bool) ([]mesh.WorkloadID, error) {
			resumed = append(resumed, p)
			return nil, nil
		}}, cancel)
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if len(resumed) != 1 || resumed[0] != peer {
		t.Fatalf("resumed %v, want the removal of %s", resumed, peer)
	}
	if err := m.Trust.Unfinished(func(mesh.PeerID, bool) { t.Error("the removal is still unfinished") }); err != nil {
		t.Fatal(err)
	}
}

func TestAddPeerReadsAddresses(t *testing.T) {
	m := mustOpen(t, t.TempDir())
	defer m.Close()
	a := &api{m: m}
	ctx := context.Background()
	id := otherPeer(t)
	full := "/ip4/127.0.0.1/tcp/4001/p2p/" + id.String()
	p, err := a.AddPeer(ctx, control.AddPeer{Addrs: []string{full}})
	if err != nil || p.ID != id || len(p.Addrs) != 1 || len(p.Grant.Allow) != 0 || !strings.HasPrefix(p.Name, "peer-") {
		t.Fatalf("added as %+v, %v; want it known, named, and allowed nothing", p, err)
	}
	allow := []string{"deploy"}
	if p, err = a.AddPeer(ctx, control.AddPeer{ID: full, Name: "bob", Change: control.GrantChange{Allow: &allow}}); err != nil || p.Name != "bob" || len(p.Addrs) != 1 {
		t.Fatalf("added again as %+v, %v", p, err)
	}
	none := []string{}
	if p, err = a.AllowPeer(ctx, "bob", control.GrantChange{Allow: &none}); err != nil || len(p.Grant.Allow) != 0 {
		t.Fatalf("after taking all back: %+v, %v", p, err)
	}
	bad := []string{"everything"}
	for name, in := range map[string]control.AddPeer{
		"no ID":          {},
		"another's addr": {ID: otherPeer(t).String(), Addrs: []string{full}},
		"bad address":    {Addrs: []string{"/ip4/nonsense"}},
		"bad permission": {ID: otherPeer(t).String(), Change: control.GrantChange{Allow: &bad}},
		"itself":         {ID: m.Key.ID.String()},
	} {
		if _, err := a.AddPeer(ctx, in); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// Lockdown holds across restarts, and what runs is stopped again at each start.
func TestLockdownSurvivesRestart(t *testing.T) {
	home := shortDir(t)
	m := mustOpen(t, home)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	halts := 0
	hooks := Hooks{Halt: func(context.Context) ([]mesh.WorkloadID, error) { halts++; return nil, nil }}
	a := &api{m: m, hooks: hooks}
	peer := otherPeer(t)
	if _, err := a.AddPeer(ctx, control.AddPeer{ID: peer.String(), Name: "bob"}); err != nil {
		t.Fatal(err)
	}
	if l, err := a.Lockdown(ctx); err != nil || !l.Locked || halts != 1 || m.Trust.Allowed(peer) {
		t.Fatalf("locked as %+v, %v; %d halts, bob allowed %t", l, err, halts, m.Trust.Allowed(peer))
	}
	m.Close()
	m = mustOpen(t, home)
	defer m.Close()
	if err := m.Run(ctx, nil, nil, hooks, cancel); err != nil {
		t.Fatal(err)
	}
	if halts != 2 || m.Trust.Allowed(peer) {
		t.Fatalf("after a restart: %d halts, bob allowed %t", halts, m.Trust.Allowed(peer))
	}
	if _, err := (&api{m: m, hooks: hooks}).Unlock(context.Background()); err != nil || !m.Trust.Allowed(peer) {
		t.Fatalf("after unlock bob is allowed: %t, %v", m.Trust.Allowed(peer), err)
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }
