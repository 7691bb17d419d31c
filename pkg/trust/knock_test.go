package trust

import (
	"context"
	"testing"
	"time"

	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

// Strangers may knock from when the owner says so until when, over restarts, and a
// clock that is set back does not make that longer.
func TestKnockingIsOffUnlessSaid(t *testing.T) {
	f := open(t)
	ctx := context.Background()
	if _, open := f.Knocking(); open {
		t.Fatal("strangers may knock though nobody said so")
	}
	if _, err := f.LetKnock(ctx, MaxKnocking+time.Second); mesh.KindOf(err) != mesh.Invalid {
		t.Fatalf("for ever: %v, want Invalid", err)
	}
	if _, err := f.LetKnock(ctx, -time.Second); mesh.KindOf(err) != mesh.Invalid {
		t.Fatalf("for less than nothing: %v, want Invalid", err)
	}
	if _, err := f.LetKnock(ctx, time.Hour); err != nil {
		t.Fatal(err)
	}
	f.reopen()
	if _, open := f.Knocking(); !open {
		t.Fatal("a restart ended it")
	}
	now := time.Now()
	for after, want := range map[time.Duration]bool{59 * time.Minute: true, 61 * time.Minute: false, -time.Minute: true, -time.Hour: false} {
		f.now = func() time.Time { return now.Add(after) }
		if _, open := f.Knocking(); open != want {
			t.Errorf("%s later strangers may knock: %t, want %t", after, open, want)
		}
	}
	f.now = time.Now
	if _, err := f.Lock(ctx); err != nil {
		t.Fatal(err)
	}
	if _, open := f.Knocking(); open {
		t.Error("strangers may knock at a machine that is locked down")
	}
	if err := f.Unlock(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := f.LetKnock(ctx, 0); err != nil {
		t.Fatal(err)
	}
	f.reopen()
	if _, open := f.Knocking(); open {
		t.Error("strangers may still knock")
	}
}

// A refusal is remembered over a restart, and lapses; the memory is bounded, and a
// welcome ends it.
func TestDenialsAreRemembered(t *testing.T) {
	f := open(t)
	ctx := context.Background()
	now := time.Now()
	f.now = func() time.Time { return now }
	eve := peerID(t, 1)
	if err := f.Deny(ctx, eve, time.Hour); err != nil {
		t.Fatal(err)
	}
	f.reopen()
	f.now = func() time.Time { return now }
	if _, denied, err := f.Denied(eve); err != nil || !denied {
		t.Fatalf("denied: %t, %v", denied, err)
	}
	if _, denied, _ := f.Denied(peerID(t, 2)); denied {
		t.Error("somebody else is denied")
	}
	now = now.Add(2 * time.Hour)
	if _, denied, _ := f.Denied(eve); denied {
		t.Error("it never lapses")
	}
	for n := range uint32(MaxDenied + 20) {
		if err := f.Deny(ctx, peerID(t, 10+n), time.Hour+time.Duration(n)*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	count := 0
	if err := f.store.View(func(tx *store.Tx) error { count = tx.Count(store.Denied); return nil }); err != nil {
		t.Fatal(err)
	}
	if _, denied, _ := f.Denied(peerID(t, 10+MaxDenied+19)); count > MaxDenied || !denied {
		t.Errorf("%d refusals are remembered, the last of them: %t; want at most %d, and the last", count, denied, MaxDenied)
	}
	last := peerID(t, 10+MaxDenied+19)
	g, err := f.Welcome(ctx, Grant{Peer: last, Allow: Deploy, Quota: DefaultQuota()}, "alice")
	if err != nil || g.Name != "alice" || !f.Allowed(last) {
		t.Fatalf("welcomed as %+v, %v", g, err)
	}
	if _, denied, _ := f.Denied(last); denied {
		t.Error("one that is trusted is denied")
	}
	if g, err := f.Welcome(ctx, Grant{Peer: peerID(t, 2), Quota: DefaultQuota()}, "alice"); err != nil || g.Name != "alice-2" {
		t.Errorf("a second alice is %q, %v", g.Name, err)
	}
	if _, err := f.Welcome(ctx, Grant{Peer: peerID(t, 3), Name: "alice", Quota: DefaultQuota()}, ""); mesh.KindOf(err) != mesh.Conflict {
		t.Errorf("a name that is taken: %v, want Conflict", err)
	}
	if _, err := f.Lock(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Welcome(ctx, Grant{Peer: peerID(t, 4), Quota: DefaultQuota()}, ""); mesh.KindOf(err) != mesh.Denied {
		t.Errorf("welcomed under lockdown: %v", err)
	}
}
