package secret

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"peercompute/pkg/identity"
	"peercompute/pkg/mesh"
)

func key(t testing.TB) *identity.Key {
	t.Helper()
	k, err := identity.Create(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Only the peer that it is for can open it, and takes it only from who sealed it, under
// the name that it was sealed under.
func TestSealed(t *testing.T) {
	alice, bob, carol := key(t), key(t), key(t)
	value := []byte("correct horse battery staple")
	sealed, err := Seal(alice.ID, bob.ID, "db", value)
	if err != nil || bytes.Contains(sealed, value) || len(sealed) > MaxSealed {
		t.Fatalf("sealed %d bytes, %v", len(sealed), err)
	}
	if got, err := Open(bob, alice.ID, "db", sealed); err != nil || !bytes.Equal(got, value) {
		t.Fatalf("opened %q, %v", got, err)
	}
	flipped := bytes.Clone(sealed)
	flipped[len(flipped)-1] ^= 1
	for what, open := range map[string]func() ([]byte, error){
		"by another peer":                   func() ([]byte, error) { return Open(carol, alice.ID, "db", sealed) },
		"as another's":                      func() ([]byte, error) { return Open(bob, carol.ID, "db", sealed) },
		"under another name":                func() ([]byte, error) { return Open(bob, alice.ID, "other", sealed) },
		"changed":                           func() ([]byte, error) { return Open(bob, alice.ID, "db", flipped) },
		"cut":                               func() ([]byte, error) { return Open(bob, alice.ID, "db", sealed[:len(sealed)-1]) },
		"not sealed at all":                 func() ([]byte, error) { return Open(bob, alice.ID, "db", value) },
		"too large":                         func() ([]byte, error) { return Open(bob, alice.ID, "db", make([]byte, MaxSealed+1)) },
		"for another peer, by its own hand": func() ([]byte, error) { return Open(bob, alice.ID, "db", resealed(t, alice, carol, bob)) },
	} {
		if got, err := open(); err == nil {
			t.Errorf("%s it was opened: %q", what, got)
		}
	}
	again, err := Seal(alice.ID, bob.ID, "db", value)
	if err != nil || bytes.Equal(again, sealed) {
		t.Error("the same value is sealed to the same bytes")
	}
	for _, bad := range [][]byte{nil, make([]byte, mesh.MaxSecret+1)} {
		if _, err := Seal(alice.ID, bob.ID, "db", bad); err == nil {
			t.Errorf("%d bytes were sealed", len(bad))
		}
	}
	if s, err := Seal(alice.ID, bob.ID, "db", make([]byte, mesh.MaxSecret)); err != nil || len(s) > MaxSealed {
		t.Errorf("the largest is %d bytes sealed, %v", len(s), err)
	}
}

// resealed is what from bound to one peer, encrypted to another.
func resealed(t *testing.T, from, to, other *identity.Key) []byte {
	t.Helper()
	r, err := recipient(other.ID)
	if err != nil {
		t.Fatal(err)
	}
	b, err := encrypt(r, bound(from.ID, to.ID, "db", []byte("x")))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestVault(t *testing.T) {
	dir := t.TempDir()
	v, err := OpenVault(dir)
	if err != nil {
		t.Fatal(err)
	}
	locked, err := v.Lock([]byte("value"))
	if err != nil || bytes.Contains(locked, []byte("value")) {
		t.Fatalf("locked: %q, %v", locked, err)
	}
	again, err := OpenVault(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := again.Unlock(locked); err != nil || string(got) != "value" {
		t.Errorf("unlocked %q, %v", got, err)
	}
	path := filepath.Join(dir, KeyFile)
	late, err := newVault(dir, path) // by one that saw no key there either
	if err != nil {
		t.Fatal(err)
	}
	if got, err := late.Unlock(locked); err != nil || string(got) != "value" {
		t.Errorf("one that came late unlocked %q, %v", got, err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode() != 0o600 {
		t.Errorf("its key is %v, %v", st.Mode(), err)
	}
	other, err := OpenVault(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Unlock(locked); err == nil {
		t.Error("another vault opened it")
	}
	if err := os.WriteFile(path, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenVault(dir); mesh.KindOf(err) != mesh.Invalid {
		t.Errorf("a damaged key: %v", err)
	}
}

func FuzzOpen(f *testing.F) {
	k := key(f)
	sealed, err := Seal(k.ID, k.ID, "a", []byte("x"))
	if err != nil {
		f.Fatal(err)
	}
	r, err := recipient(k.ID)
	if err != nil {
		f.Fatal(err)
	}
	short, err := encrypt(r, []byte(domain))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Add(short)
	f.Add([]byte("age-encryption.org/v1\n-> ssh-ed25519 a b\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		if got, err := Open(k, k.ID, "a", in); err == nil && string(got) != "x" {
			t.Errorf("opened %q", got)
		}
	})
}
