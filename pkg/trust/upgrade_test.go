package trust

import (
	"testing"
	"time"

	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
	"peercompute/pkg/testkit"
)

// The trust log of an old state file still holds: what a grant has gained since is
// absent from old entries, and does not break their hashes.
func TestOldTrustLogHolds(t *testing.T) {
	st, err := store.Open(testkit.OldState(t, "../store/testdata/state-v1.db.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	self, err := mesh.ParsePeerID("12D3KooWHuLUbpGHwxNTRHZb9U1Z5US6HRkPkXjjuuo5ztDHe2Yh")
	if err != nil {
		t.Fatal(err)
	}
	l, err := Open(st, self, func() time.Time { return time.Date(2026, 11, 26, 0, 0, 0, 0, time.UTC) })
	if err != nil {
		t.Fatal(err)
	}
	all := l.All()
	if len(all) != 2 || all[0].Name != "alice" || all[1].Name != "gw" {
		t.Fatalf("the list is %+v", all)
	}
	if g := all[0]; g.Allow != Deploy|Observe || g.Quota.Workloads != 20 || g.Quota.Resources.Memory != 2<<30 {
		t.Errorf("alice's grant is %+v", g)
	}
	if open, err := l.Invites(); err != nil || len(open) != 1 || open[0].Uses != 3 {
		t.Errorf("the open invites are %+v, %v", open, err)
	}
	if err := l.Put(t.Context(), all[0]); err != nil {
		t.Error(err)
	}
}
