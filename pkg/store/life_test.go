package store

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

// A renewed file keeps its new incarnation, and its mark still knows it; accepted
// as an older copy, it gets yet another one.
func TestRenew(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	first := s.Incarnation()
	if err := s.Renew(context.Background(), func(tx *Tx) error { return tx.Put(Meta, []byte("k"), []byte("v")) }); err != nil {
		t.Fatal(err)
	}
	second := s.Incarnation()
	s.Close()
	copied, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if s, err = Open(path); err != nil {
		t.Fatal(err)
	}
	if first == second || s.Incarnation() != second {
		t.Fatalf("%x became %x, and %x after a restart", first, second, s.Incarnation())
	}
	if err := s.Update(context.Background(), func(tx *Tx) error { return tx.Put(Meta, []byte("k"), []byte("w")) }); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if err := os.WriteFile(path, copied, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(path); err == nil {
		s.Close()
		t.Fatal("an older copy opens")
	}
	if s, err = OpenOld(path); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if now := s.Incarnation(); now == first || now == second {
		t.Fatal("an older copy keeps its incarnation")
	}
}
