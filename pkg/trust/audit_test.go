package trust

import (
	"context"
	"encoding/hex"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"peercompute/pkg/audit"
	"peercompute/pkg/identity"
	"peercompute/pkg/store"
)

// Every change of the list is on record with who made it, in its own transaction;
// one that is refused is not. The record holds no secret.
func TestEveryChangeIsOnRecord(t *testing.T) {
	st, err := store.Open(filepath.Join(t.TempDir(), store.FileName))
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	var ids []*identity.Key
	for range 3 {
		k, err := identity.Create(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, k)
	}
	ctx := context.Background()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	l, err := Open(st, ids[0].ID, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	alice, bob := ids[1].ID, ids[2].ID
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(l.Put(ctx, Grant{Peer: alice, Name: "alice", Allow: Deploy, Quota: DefaultQuota()}))
	if l.Put(ctx, Grant{Peer: bob, Name: "alice"}) == nil || l.Put(ctx, Grant{Peer: bob, Name: "NO"}) == nil {
		t.Fatal("a change that should be refused is not")
	}
	i, err := l.Invite(ctx, Invite{Expires: now.Add(time.Hour), Uses: 1, Allow: Observe, Quota: DefaultQuota()})
	must(err)
	_, _, err = l.Redeem(ctx, bob, "bob", nil, func(s [16]byte) bool { return s == i.Secret })
	must(err)
	other, err := l.Invite(ctx, Invite{Expires: now.Add(time.Hour), Uses: 1, Allow: Observe, Quota: DefaultQuota()})
	must(err)
	must(l.Withdraw(ctx, other.ID))
	_, err = l.Remove(ctx, alice, false)
	must(err)
	_, err = l.Lock(ctx)
	must(err)
	must(l.Unlock(ctx))

	want := []string{
		"local grant.put " + alice.String(), "local invite.open " + i.ID, bob.String() + " invite.use " + i.ID,
		bob.String() + " grant.put " + bob.String(), "local invite.open " + other.ID, "local invite.withdraw " + other.ID,
		"local grant.remove " + alice.String(), "local lockdown ", "local unlock ",
	}
	log := audit.New(audit.Config{Store: st, Now: func() time.Time { return now }})
	lines, err := log.Read(1, 100)
	must(err)
	for n, e := range lines {
		if got := e.Actor + " " + e.Action + " " + e.Subject; n >= len(want) || got != want[n] {
			t.Errorf("entry %d is %q, want one of %q", n+1, got, want)
		}
		if strings.Contains(e.Detail, string(i.Secret[:])) || strings.Contains(e.Detail, hex.EncodeToString(i.Secret[:])) {
			t.Errorf("entry %d holds an invite's secret", n+1)
		}
	}
	if len(lines) != len(want) {
		t.Errorf("%d entries, want %d", len(lines), len(want))
	}
	if _, err := log.Verify(); err != nil {
		t.Error(err)
	}
}
