package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"path/filepath"
	"slices"
	"testing"

	bolt "go.etcd.io/bbolt"

	"peercompute/pkg/mesh"
	"peercompute/pkg/testkit"
)

const stateV1 = "testdata/state-v1.db.gz"

// contents reads a whole file without opening it as a Store.
func contents(t *testing.T, path string) map[string]map[string]string {
	t.Helper()
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	all := map[string]map[string]string{}
	err = db.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			bucket := map[string]string{}
			all[string(name)] = bucket
			return b.ForEach(func(k, v []byte) error { bucket[string(k)] = string(v); return nil })
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// An old file keeps all that it held; what moved is where it belongs now.
func TestUpgradeFromVersion1(t *testing.T) { upgrade(t, stateV1, "routes", "remote", "trust_tasks") }

func TestUpgradeFromVersion2(t *testing.T) {
	upgrade(t, "testdata/state-v2.db.gz", "routes", "remote", "trust_tasks", "nonces", "nonce_expiry", "audit")
}

func upgrade(t *testing.T, packed string, mayBeEmpty ...string) {
	path := testkit.OldState(t, packed)
	before := contents(t, path)
	for range 2 { // the second time there is nothing to do
		s, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	after := contents(t, path)
	if v := after["meta"]["version"]; binary.BigEndian.Uint64([]byte(v)) != uint64(Version) {
		t.Errorf("the version is %x, want %d", v, Version)
	}
	for bucket, keys := range before {
		if len(keys) == 0 && !slices.Contains(mayBeEmpty, bucket) {
			t.Errorf("the old file's %s is empty: it proves nothing", bucket)
		}
		for k, v := range keys {
			switch got := after[bucket][k]; {
			case bucket == "meta" && k == "version":
			case bucket == "meta" && k == "pause":
				if got != "" || after["lend"]["pause"] != v {
					t.Errorf("the pause did not move: %q, %q", got, after["lend"]["pause"])
				}
			case got != v:
				t.Errorf("%s/%x is %q, want %q", bucket, k, got, v)
			}
		}
	}
	for _, b := range buckets {
		if after[string(b)] == nil {
			t.Errorf("there is no bucket %s", b)
		}
	}
	s := open(t, path)
	if from := s.From(); from != Version {
		t.Errorf("opened again it was of version %d, want %d", from, Version)
	}
	data, mark := files(t, path)
	if _, err := judge(data); err != nil || len(mark) != markSize {
		t.Errorf("the new file's sum: %v; its mark has %d bytes", err, len(mark))
	}
}

// An upgrade that fails in the middle leaves the old file as it was.
func TestFailedUpgradeChangesNothing(t *testing.T) {
	path := testkit.OldState(t, stateV1)
	before := contents(t, path)
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	boom := errors.New("boom")
	err = db.Update(func(tx *bolt.Tx) error {
		if _, err := migrate(tx, tx.Bucket([]byte(Meta))); err != nil {
			return err
		}
		return boom
	})
	db.Close()
	if !errors.Is(err, boom) {
		t.Fatal(err)
	}
	after := contents(t, path)
	if len(before) != len(after) || after["meta"]["pause"] != before["meta"]["pause"] || !bytes.Equal([]byte(after["meta"]["version"]), []byte(before["meta"]["version"])) {
		t.Fatalf("something changed: %v", after["meta"])
	}
}

func TestRefusesVersionZero(t *testing.T) {
	for _, v := range [][]byte{{}, make([]byte, 8), []byte("short")} {
		path := filepath.Join(t.TempDir(), FileName)
		s, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if from := s.From(); from != 0 {
			t.Errorf("a new file says it was of version %d", from)
		}
		if err := s.Update(context.Background(), func(tx *Tx) error { return tx.Put(Meta, keyVersion, v) }); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path); mesh.KindOf(err) != mesh.Invalid {
			t.Fatalf("version %x: %v, want Invalid", v, err)
		}
	}
}
