package alarm

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

func open(t *testing.T, path string, now *time.Time) (*Book, *store.Store) {
	t.Helper()
	st, err := store.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Open(st, func() time.Time { return *now })
	if err != nil {
		t.Fatal(err)
	}
	return b, st
}

const p, q = "12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X", "12D3KooWH3uVF6wv47WnArKHk5p6cvgCJEb74UTmxztmQDc298L3"

func id(t *testing.T, s string) mesh.PeerID {
	t.Helper()
	v, err := mesh.ParsePeerID(s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestAlarmsStayUntilDismissed(t *testing.T) {
	path, now := filepath.Join(t.TempDir(), "s"), time.UnixMilli(1767225600000).UTC()
	b, st := open(t, path, &now)
	ctx := t.Context()
	heard := 0
	b.On(func(Alarm) { heard++ })
	for range 3 {
		if err := b.Raise(ctx, Alarm{Kind: "k", Peer: id(t, p), Text: "look"}); err != nil {
			t.Fatal(err)
		}
	}
	now = now.Add(2 * again)
	if err := b.Raise(ctx, Alarm{Kind: "k", Peer: id(t, p), Text: "look"}); err != nil {
		t.Fatal(err)
	}
	if err := b.Raise(ctx, Alarm{Kind: "k", Peer: id(t, q), Text: "look there"}); err != nil {
		t.Fatal(err)
	}
	st.Close()
	b, st = open(t, path, &now)
	defer st.Close()
	all := b.All()
	if len(all) != 2 || all[0].Count != 4 || !all[0].Last.Equal(now) || all[1].Peer != id(t, q) || heard != 2 {
		t.Fatalf("kept %+v, and %d were heard of; want two, the first seen 4 times", all, heard)
	}
	if _, err := b.Dismiss(ctx, all[0].ID); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Dismiss(ctx, all[0].ID); mesh.KindOf(err) != mesh.NotFound {
		t.Fatalf("dismissed twice: %v", err)
	}
	if err := b.Raise(ctx, Alarm{Kind: "k", Peer: id(t, p), Text: "again"}); err != nil {
		t.Fatal(err)
	}
	if all := b.All(); len(all) != 2 || all[1].Text != "again" || all[1].ID == 1 {
		t.Fatalf("after dismissing and raising again: %+v", all)
	}
}

func TestAlarmsAreBounded(t *testing.T) {
	path, now := filepath.Join(t.TempDir(), "s"), time.UnixMilli(1767225600000)
	b, st := open(t, path, &now)
	for i := range 2 * Max {
		if err := b.Raise(t.Context(), Alarm{Kind: fmt.Sprint(i), Text: strings.Repeat("é", maxText)}); err != nil {
			t.Fatal(err)
		}
	}
	st.Close()
	b, st = open(t, path, &now)
	defer st.Close()
	all := b.All()
	if len(all) != Max || all[0].Kind != fmt.Sprint(Max) || len(all[0].Text) > maxText {
		t.Fatalf("%d alarms from %s on, texts of %d bytes", len(all), all[0].Kind, len(all[0].Text))
	}
}
