package trust

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"reflect"
	"testing"

	"peercompute/pkg/store"
)

// Whatever is written in place of one entry of the trust log, it is either the same
// entry or noticed: nobody is trusted by it who was not.
func FuzzLogEntry(f *testing.F) {
	x := open(f)
	ctx := context.Background()
	for n := range uint32(3) {
		if err := x.Put(ctx, Grant{Peer: peerID(f, n+1), Name: "p" + string(rune('a'+n)), Allow: Deploy, Quota: DefaultQuota()}); err != nil {
			f.Fatal(err)
		}
	}
	var entries [][]byte
	err := x.store.View(func(tx *store.Tx) error {
		return tx.Each(store.TrustLog, nil, func(_, v []byte) (bool, error) {
			entries = append(entries, bytes.Clone(v))
			return true, nil
		})
	})
	if err != nil || len(entries) != 3 {
		f.Fatalf("%d entries, %v", len(entries), err)
	}
	for i, e := range entries {
		f.Add(uint8(i+1), e)
		f.Add(uint8(i), e)
		f.Add(uint8(i+1), bytes.Replace(e, []byte("put"), []byte("remove"), 1))
		f.Add(uint8(i+1), bytes.Replace(e, []byte("deploy"), []byte("migrate"), 1))
	}
	f.Add(uint8(4), []byte(`{"seq":4}`))
	want := x.All()
	f.Fuzz(func(t *testing.T, at uint8, data []byte) {
		back := errors.New("put back") // nothing of this stays in the file
		err := x.store.Update(ctx, func(tx *store.Tx) error {
			if err := tx.Put(store.TrustLog, binary.BigEndian.AppendUint64(nil, uint64(at)), data); err != nil {
				return back // such as a value that is too large
			}
			all, _, err := replay(tx)
			if err != nil {
				return back
			}
			grants := all.grants
			if len(grants) != len(want) {
				t.Errorf("entry %d is taken as %q: %d are trusted", at, data, len(grants))
			}
			for _, g := range want {
				if !reflect.DeepEqual(grants[g.Peer], g) {
					t.Errorf("entry %d is taken as %q: %+v", at, data, grants[g.Peer])
				}
			}
			return back
		})
		if !errors.Is(err, back) {
			t.Fatal(err)
		}
	})
}
