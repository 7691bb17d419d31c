package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"peercompute/pkg/mesh"
)

// opened opens a file that the test closes itself.
func opened(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t *testing.T, s *Store, b Bucket, from, to int, size int) {
	t.Helper()
	err := s.Update(context.Background(), func(tx *Tx) error {
		for i := from; i < to; i++ {
			if err := tx.Put(b, fmt.Appendf(nil, "key %05d", i), bytes.Repeat([]byte{byte(i)}, size)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// files copies a state file and its mark.
func files(t *testing.T, path string) (state, mark []byte) {
	t.Helper()
	state, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if mark, err = os.ReadFile(path + MarkSuffix); err != nil {
		t.Fatal(err)
	}
	return state, mark
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A state file that is not the latest is refused, with a next step; accepted all the
// same, it has another incarnation from then on.
func TestRolledBackIsRefused(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, FileName)
	s := opened(t, path)
	put(t, s, Nonces, 0, 10, 100)
	was := s.Incarnation()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	state, mark := files(t, path)
	s = opened(t, path)
	put(t, s, Nonces, 10, 11, 100) // one change is enough
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	latest, _ := files(t, path)
	other := open(t, filepath.Join(dir, "other.db"))
	put(t, other, Nonces, 0, 50, 10)
	_, foreign := files(t, other.db.Path())
	for name, spoil := range map[string]func(){
		"an older file":               func() { write(t, path, state) },
		"an older file, mark lost":    func() { write(t, path, state); os.Remove(path + MarkSuffix) },
		"the mark lost":               func() { os.Remove(path + MarkSuffix) },
		"the mark empty":              func() { write(t, path+MarkSuffix, nil) },
		"the mark cut":                func() { write(t, path+MarkSuffix, mark[:len(mark)-1]) },
		"the mark longer":             func() { write(t, path+MarkSuffix, append(bytes.Clone(mark), 0)) },
		"a bit of the mark flipped":   func() { b := bytes.Clone(mark); b[len(markMagic)+20] ^= 1; write(t, path+MarkSuffix, b) },
		"another file's mark":         func() { write(t, path+MarkSuffix, foreign) },
		"the latest head page broken": func() { write(t, path, breakLastMeta(t, latest)) },
	} {
		_, good := files(t, path)
		spoil()
		_, err := Open(path)
		if e := mesh.AsError(err); e == nil || e.Rule != "state.latest" || !strings.Contains(e.Hint, "--old-state") {
			t.Errorf("%s: %v, want it refused by state.latest", name, err)
		}
		write(t, path, latest)
		write(t, path+MarkSuffix, good)
	}
	// An older mark is what a power loss leaves: the file is ahead of it.
	write(t, path+MarkSuffix, mark)
	opened(t, path).Close()

	write(t, path, state)
	s, err := OpenOld(path)
	if err != nil {
		t.Fatal(err)
	}
	inc := s.Incarnation()
	if inc == was || s.Old() == nil {
		t.Errorf("accepted with the incarnation %x (was %x), old: %v", inc, was, s.Old())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(path); err != nil { // that was once
		t.Fatal(err)
	}
	if s.Incarnation() != inc || s.Old() != nil {
		t.Errorf("opened again: incarnation %x, want %x; old: %v", s.Incarnation(), inc, s.Old())
	}
	s.Close()
	if s, err = OpenOld(path); err != nil { // on the latest it changes nothing
		t.Fatal(err)
	}
	defer s.Close()
	if s.Incarnation() != inc || s.Old() != nil {
		t.Errorf("the latest was taken for an old one: %v", s.Old())
	}
}

// breakLastMeta damages the newer head page, so that bbolt would use the older one.
func breakLastMeta(t *testing.T, data []byte) []byte {
	t.Helper()
	data = bytes.Clone(data)
	m, err := lastMeta(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	at := int(m.pageSize) * int(m.txid%2)
	data[at+pageHead+48] ^= 1 // its transaction number
	return data
}

// bigFile makes a file with trees of more than one level, small buckets inside
// their values, large values and free pages.
func bigFile(t testing.TB, dir string) (path string) {
	t.Helper()
	path = filepath.Join(dir, FileName)
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for round := range 4 {
		err := s.Update(context.Background(), func(tx *Tx) error {
			for i := range 400 {
				k := binary.BigEndian.AppendUint64(nil, uint64(i*7919%1000))
				if err := errors.Join(tx.Put(Nonces, k, bytes.Repeat([]byte{byte(i + round)}, 90)), tx.Put(NonceExpiry, k, nil)); err != nil {
					return err
				}
				if i%3 == 0 {
					if err := errors.Join(tx.Delete(Nonces, k), tx.Delete(NonceExpiry, k)); err != nil {
						return err
					}
				}
			}
			return errors.Join(tx.Put(Workloads, []byte("large"), bytes.Repeat([]byte("x"), 20_000)), tx.Put(Remote, []byte("k"), []byte("v")))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// judge is what Open concludes from bytes: an error, or what they hold.
func judge(data []byte) (*reading, error) {
	c, err := inspect(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, err
	}
	if c.want == nil || !bytes.Equal(c.want, c.sum[:]) {
		return nil, errors.New("does not add up")
	}
	return c, nil
}

// The file as it is passes, and what the sum says is what bbolt sees. Of each bit that
// is flipped, the file is refused, or still holds exactly what it held; or only the
// newest head page is gone, which the mark tells.
func TestFlippedBits(t *testing.T) {
	path := bigFile(t, t.TempDir())
	data, _ := files(t, path)
	good, err := judge(data)
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, path)
	if s.sum.sum != good.sum {
		t.Fatalf("the sum is %x, and the pages add up to %x", s.sum.sum, good.sum)
	}
	seen, harmless, older := 0, 0, 0
	tries := 4000
	if testing.Short() {
		tries = 1000
	}
	for range tries {
		at := rand.IntN(len(data) * 8)
		data[at/8] ^= 1 << (at % 8)
		switch c, err := judge(data); {
		case err != nil:
			seen++
		case c.txid < good.txid:
			older++ // openMark refuses it
		case c.sum != good.sum:
			t.Errorf("bit %d flipped: the file holds something else, and passes", at)
		default:
			harmless++
		}
		data[at/8] ^= 1 << (at % 8)
	}
	t.Logf("of %d flips %d are refused, %d fall back to the page before, %d are where nothing lies", tries, seen, older, harmless)
	if seen < tries/10 || harmless == 0 {
		t.Error("the flips hardly tried anything")
	}
}

// No bytes make the inspector panic, loop or take much memory.
func FuzzInspect(f *testing.F) {
	path := bigFile(f, f.TempDir())
	data, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data[:32<<10], uint32(5000), uint16(7))
	f.Add(data, uint32(9000), uint16(0xffff))
	f.Add([]byte{}, uint32(0), uint16(0))
	f.Fuzz(func(t *testing.T, data []byte, at uint32, v uint16) {
		data = bytes.Clone(data)
		if n := len(data); n > 2 {
			binary.LittleEndian.PutUint16(data[int(at)%(n-1):], v)
		}
		_, _ = inspect(bytes.NewReader(data), int64(len(data)))
	})
}

// A change that fails leaves the sum as it was.
func TestSumFollowsEveryChange(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	s := opened(t, path)
	err := s.Update(context.Background(), func(tx *Tx) error {
		for _, err := range []error{
			tx.Put(Workloads, []byte("a"), nil), tx.Put(Workloads, []byte("a"), []byte("1")), tx.Put(Workloads, []byte("a"), nil),
			tx.Put(Workloads, []byte("b"), []byte("2")), tx.Delete(Workloads, []byte("b")), tx.Delete(Workloads, []byte("never")),
			tx.Put(Remote, []byte("a"), []byte("1")),
		} {
			if err != nil {
				return err
			}
		}
		if err := tx.Put(Workloads, nil, []byte("no key")); err == nil {
			t.Error("an element without a key was taken")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	refusal := errors.New("no")
	if err := s.Update(context.Background(), func(tx *Tx) error { return errors.Join(tx.Put(Remote, []byte("z"), nil), refusal) }); !errors.Is(err, refusal) {
		t.Fatal(err)
	}
	if err := s.View(func(tx *Tx) error { return tx.Put(Remote, []byte("z"), nil) }); err == nil {
		t.Error("a view wrote")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	opened(t, path).Close()
}
