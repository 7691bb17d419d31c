package blob

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"peercompute/pkg/mesh"
)

func open(t *testing.T, max int64) *Store {
	t.Helper()
	s, err := Open(Config{Dir: filepath.Join(t.TempDir(), "blobs"), Noun: "thing", Ext: ".bin", One: 1000, Max: max, Hint: "make it again"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t *testing.T, s *Store, text string, inUse ...string) (string, error) {
	t.Helper()
	digest, _, err := s.Put(t.Context(), strings.NewReader(text), "", func() (map[string]bool, error) {
		used := map[string]bool{}
		for _, d := range inUse {
			used[d] = true
		}
		return used, nil
	})
	return digest, err
}

func TestKeepsByDigest(t *testing.T) {
	s := open(t, 5000)
	digest, err := put(t, s, "hello")
	if err != nil || digest != "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824" {
		t.Fatalf("got %s, %v", digest, err)
	}
	f, err := s.Open(digest)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if b, _ := io.ReadAll(f); string(b) != "hello" {
		t.Errorf("got %q", b)
	}
	if again, err := put(t, s, "hello"); err != nil || again != digest {
		t.Errorf("again: %s, %v", again, err)
	}
	if _, _, err := s.Put(t.Context(), strings.NewReader("hellO"), digest, nil); mesh.KindOf(err) != mesh.Forged || mesh.AsError(err).Rule != "thing.digest" {
		t.Errorf("other bytes under its digest: %v", err)
	}
	if err := errors.Join(s.Remove(digest), s.Remove(digest)); err != nil {
		t.Error(err)
	}
	if _, err := s.Path(digest); mesh.KindOf(err) != mesh.NotFound {
		t.Errorf("removed: %v", err)
	}
	if _, err := s.Path("sha256:../../etc/passwd"); mesh.KindOf(err) != mesh.Invalid {
		t.Errorf("no digest: %v", err)
	}
}

func TestIsBounded(t *testing.T) {
	s := open(t, 2500)
	if _, err := put(t, s, strings.Repeat("x", 1001)); mesh.KindOf(err) != mesh.TooLarge {
		t.Errorf("one that is too large: %v", err)
	}
	full := func(c string) string { return strings.Repeat(c, 1000) }
	a, err := put(t, s, full("a"))
	b, berr := put(t, s, full("b"))
	if err := errors.Join(err, berr); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	for _, d := range []string{a, b} {
		path, _ := s.Path(d)
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
	}
	f, err := s.Open(a) // used just now
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if _, err := put(t, s, full("c")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Path(a); err != nil {
		t.Errorf("the one that was used last went: %v", err)
	}
	if _, err := s.Path(b); mesh.KindOf(err) != mesh.NotFound {
		t.Error("the oldest stayed")
	}
	c, _ := put(t, s, full("c"))
	if _, err := put(t, s, full("d"), a, c); mesh.KindOf(err) != mesh.Quota || mesh.AsError(err).Rule != "host.things" {
		t.Errorf("with all in use: %v", err)
	}
	left, err := filepath.Glob(filepath.Join(s.cfg.Dir, "*"))
	if hidden, _ := filepath.Glob(filepath.Join(s.cfg.Dir, ".*")); err != nil || len(left) != 2 || len(hidden) != 0 {
		t.Errorf("there are %v %v", left, hidden)
	}
}

func TestWhatWasInterruptedIsGone(t *testing.T) {
	s := open(t, 2500)
	w, err := s.Create()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("half")); err != nil {
		t.Fatal(err)
	}
	w.tmp.Close()                          // and nothing else: the process died
	if _, err := Open(s.cfg); err != nil { // the next life
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(s.cfg.Dir); len(left) != 0 {
		t.Errorf("there are %v", left)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := s.Put(ctx, bytes.NewReader(nil), "", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("for a caller that is gone: %v", err)
	}
}
