package trust

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"peercompute/pkg/mesh"
)

func invite(t *testing.T, f *fixture, uses int) Invite {
	t.Helper()
	i, err := f.Invite(context.Background(), Invite{Expires: time.Now().Add(time.Hour), Uses: uses, Allow: Deploy, Quota: DefaultQuota()})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func knows(s [16]byte) func([16]byte) bool { return func(have [16]byte) bool { return have == s } }

func TestInviteIsUsedOnce(t *testing.T) {
	f := open(t)
	if f.Expecting() {
		t.Fatal("strangers may knock without an invite")
	}
	i := invite(t, f, 1)
	f.reopen()
	if !f.Expecting() {
		t.Fatal("an open invite did not survive a restart")
	}
	ctx := context.Background()
	if _, _, err := f.Redeem(ctx, peerID(t, 1), "alice", nil, knows([16]byte{1})); mesh.KindOf(err) != mesh.Denied || f.Allowed(peerID(t, 1)) {
		t.Fatalf("a wrong secret: %v", err)
	}
	g, secret, err := f.Redeem(ctx, peerID(t, 1), "alice", []string{"/ip4/192.0.2.1/tcp/1"}, knows(i.Secret))
	if err != nil || secret != i.Secret || g.Name != "alice" || g.Allow != Deploy || !f.Allowed(peerID(t, 1)) {
		t.Fatalf("redeemed as %+v, %v", g, err)
	}
	if f.Expecting() {
		t.Fatal("a used invite still lets strangers knock")
	}
	if _, _, err := f.Redeem(ctx, peerID(t, 2), "eve", nil, knows(i.Secret)); mesh.KindOf(err) != mesh.Denied {
		t.Fatalf("used twice: %v", err)
	}
}

// Whatever one who joins would like to be called, it gets a name.
func TestWishedNames(t *testing.T) {
	f := open(t)
	for n, wished := range []string{strings.Repeat("x", mesh.MaxName), strings.Repeat("y", mesh.MaxName-5) + "-zzzz", "", "self", "-", "Ä"} {
		i := invite(t, f, 1)
		if g, _, err := f.Redeem(context.Background(), peerID(t, uint32(n+1)), wished, nil, knows(i.Secret)); err != nil || !mesh.ValidLabel(g.Name) {
			t.Errorf("wished for %q: %q, %v", wished, g.Name, err)
		}
	}
}

func TestInviteRace(t *testing.T) {
	f := open(t)
	i := invite(t, f, 3)
	var got atomic.Int32
	var wg sync.WaitGroup
	for n := range uint32(12) {
		wg.Go(func() {
			if _, _, err := f.Redeem(context.Background(), peerID(t, n+1), "same", nil, knows(i.Secret)); err == nil {
				got.Add(1)
			}
		})
	}
	wg.Wait()
	if got.Load() != 3 || len(f.All()) != 3 {
		t.Fatalf("%d joined and %d are trusted, want 3", got.Load(), len(f.All()))
	}
}

func TestInviteLapsesAndIsWithdrawn(t *testing.T) {
	f := open(t)
	now := time.Now()
	f.now = func() time.Time { return now }
	i := invite(t, f, 1)
	now = now.Add(2 * time.Hour)
	if _, _, err := f.Redeem(context.Background(), peerID(t, 1), "a", nil, knows(i.Secret)); mesh.KindOf(err) != mesh.Denied || f.Expecting() {
		t.Fatalf("a lapsed invite: %v, expecting %t", err, f.Expecting())
	}
	f = open(t)
	i = invite(t, f, 5)
	if err := f.Withdraw(context.Background(), i.ID); err != nil || f.Expecting() {
		t.Fatalf("withdrawn: %v, expecting %t", err, f.Expecting())
	}
	if err := f.Withdraw(context.Background(), i.ID); mesh.KindOf(err) != mesh.NotFound {
		t.Fatalf("withdrawn twice: %v", err)
	}
}

func TestInviteBounds(t *testing.T) {
	f := open(t)
	ctx := context.Background()
	for name, i := range map[string]Invite{
		"no end":       {Uses: 1},
		"too long":     {Uses: 1, Expires: time.Now().Add(MaxInviteTTL + time.Hour)},
		"no use":       {Expires: time.Now().Add(time.Hour)},
		"too many":     {Uses: MaxUses + 1, Expires: time.Now().Add(time.Hour)},
		"one name":     {Uses: 2, Name: "bob", Expires: time.Now().Add(time.Hour)},
		"bad name":     {Uses: 1, Name: "B ob", Expires: time.Now().Add(time.Hour)},
		"unknown bits": {Uses: 1, Allow: 128, Expires: time.Now().Add(time.Hour)},
	} {
		if _, err := f.Invite(ctx, i); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
	for range MaxInvites {
		invite(t, f, 1)
	}
	if _, err := f.Invite(ctx, Invite{Expires: time.Now().Add(time.Hour), Uses: 1}); mesh.KindOf(err) != mesh.Quota {
		t.Fatalf("one invite too many: %v", err)
	}
}
