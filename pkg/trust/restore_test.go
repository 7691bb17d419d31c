package trust

import (
	"context"
	"reflect"
	"strings"
	"testing"
	"time"

	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
	"peercompute/pkg/wire"
)

func nothing(*store.Tx) error { return nil }

// What was taken out and put into a new state says the same, also after it was read
// again, and what was replaced stays replaced.
func TestSnapshotAndRestore(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := Snapshot{
		Grants: []Grant{
			{Peer: peerID(t, 3), Name: "ann", Allow: Deploy, Quota: DefaultQuota(), Added: at, Rotation: 2, Origin: peerID(t, 1)},
			{Peer: peerID(t, 4), Name: "ben", Quota: DefaultQuota(), Added: at, Until: at, Ended: true},
		},
		Retired: []Former{
			{Key: peerID(t, 2), Next: peerID(t, 3), At: at, Until: at.Add(wire.MaxOverlap)},
			{Key: peerID(t, 1), Next: peerID(t, 2), At: at.Add(time.Second), Until: at, Ended: true}, // behind the one that it leads to
		},
		Locked: &Lockdown{Since: at},
	}
	x := open(t)
	ctx := context.Background()
	if err := x.Restore(ctx, s, nothing); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got := x.Snapshot(); !reflect.DeepEqual(got, s) {
			t.Fatalf("got\n%+v, want\n%+v", got, s)
		}
		for _, n := range []uint32{1, 2} {
			if err := x.Check(Grant{Peer: peerID(t, n), Name: "new", Quota: DefaultQuota()}); err == nil {
				t.Errorf("key %d, which was replaced, can be added again", n)
			}
		}
		x.reopen()
	}
	if err := x.Restore(ctx, s, nothing); err == nil {
		t.Error("it was put on top of a list that is not empty")
	}
}

func TestRestoreRefusesCircles(t *testing.T) {
	g := Grant{Peer: peerID(t, 9), Name: "ann", Quota: DefaultQuota()}
	for name, r := range map[string][]Former{
		"a circle":        {{Key: peerID(t, 1), Next: peerID(t, 2)}, {Key: peerID(t, 2), Next: peerID(t, 1)}},
		"itself":          {{Key: peerID(t, 1), Next: peerID(t, 1)}},
		"nobody":          {{Key: peerID(t, 1), Next: peerID(t, 2)}},
		"one that counts": {{Key: peerID(t, 9), Next: peerID(t, 9)}},
		"twice":           {{Key: peerID(t, 1), Next: peerID(t, 9)}, {Key: peerID(t, 1), Next: peerID(t, 9)}},
	} {
		x := open(t)
		if err := x.Restore(context.Background(), Snapshot{Grants: []Grant{g}, Retired: r}, nothing); err == nil {
			t.Errorf("%s: it was taken", name)
		}
		if seq, _ := x.Head(); seq != 0 {
			t.Errorf("%s: something was written", name)
		}
	}
}

// What is put back is checked as if it were added now.
func TestRestoreChecksEachPeer(t *testing.T) {
	x := open(t)
	good := Grant{Peer: peerID(t, 9), Name: "ann", Quota: DefaultQuota()}
	itself, unnamed, weak := good, good, good
	itself.Peer, unnamed.Name, weak.Peer = x.self, "Not A Label", mesh.PeerID("\x00\x24\x08\x01\x12\x20\x01"+strings.Repeat("\x00", 31))
	for name, g := range map[string]Grant{"this node itself": itself, "a name that is none": unnamed, "a key of small order": weak} {
		if err := x.Restore(context.Background(), Snapshot{Grants: []Grant{g}}, nothing); err == nil {
			t.Errorf("%s: it was taken", name)
		}
	}
	if err := x.Restore(context.Background(), Snapshot{Grants: []Grant{good}}, nothing); err != nil {
		t.Error(err)
	}
}
