package member

import (
	"testing"
	"time"

	"peercompute/pkg/audit"
	"peercompute/pkg/control"
	"peercompute/pkg/identity"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
	"peercompute/pkg/wire"
)

// A log that was written anew from end to end holds in itself. What a peer
// countersigned of it shows that it is another one.
func TestRewrittenAuditLogIsNoticed(t *testing.T) {
	home := shortDir(t)
	m := mustOpen(t, home)
	bob, err := identity.Create(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (&api{m: m}).AddPeer(t.Context(), control.AddPeer{ID: bob.ID.String(), Name: "bob"}); err != nil {
		t.Fatal(err)
	}
	head, err := m.Audit.Head()
	if err != nil || head.Seq == 0 {
		t.Fatalf("the head is %+v, %v", head, err)
	}
	beat, err := wire.SealHeartbeat(m.Key.Private, wire.Heartbeat{
		Version: wire.Version, From: m.Key.ID, To: bob.ID, Time: m.Now().UnixMilli(), Nonce: wire.NewNonce(),
		Incarnation: m.Store.Incarnation(), Audit: wire.Head{Seq: head.Seq, Hash: head.Hash},
	})
	if err != nil {
		t.Fatal(err)
	}
	pulse, err := wire.SealPulse(bob.Private, wire.NewPulse(beat, bob.ID, m.Key.ID, m.Now()))
	if err != nil {
		t.Fatal(err)
	}
	change := func(what string, fn func(tx *store.Tx) error) {
		t.Helper()
		if err := m.Store.Update(t.Context(), fn); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		m.Close()
		m = mustOpen(t, home)
	}
	defer func() { m.Close() }()
	change("what bob countersigned", func(tx *store.Tx) error {
		return tx.PutJSON(store.Witness, []byte(bob.ID), map[string][]byte{"mine": beat, "counter": pulse})
	})
	if r, err := (&api{m: m}).VerifyAudit(t.Context()); err != nil || r.Witnessed != 1 {
		t.Fatalf("as it was: %+v, %v", r, err)
	}
	change("another entry", func(tx *store.Tx) error {
		return audit.Append(tx, audit.Entry{Time: m.Now(), Actor: audit.Local, Action: "more", Outcome: audit.Done})
	})
	if r, err := (&api{m: m}).VerifyAudit(t.Context()); err != nil || r.Witnessed != 1 {
		t.Fatalf("grown: %+v, %v", r, err)
	}

	lines, err := m.Audit.Read(1, 1000)
	if err != nil {
		t.Fatal(err)
	}
	change("the log, written anew", func(tx *store.Tx) error {
		var keys [][]byte
		if err := tx.Each(store.Audit, nil, func(k, _ []byte) (bool, error) {
			keys = append(keys, append([]byte{}, k...))
			return true, nil
		}); err != nil {
			return err
		}
		for _, k := range keys {
			if err := tx.Delete(store.Audit, k); err != nil {
				return err
			}
		}
		if err := tx.Delete(store.Meta, []byte("audit_head")); err != nil {
			return err
		}
		for _, l := range lines {
			l.Entry.Detail += ", they say"
			if err := audit.Append(tx, l.Entry); err != nil {
				return err
			}
		}
		return nil
	})
	if r, err := m.Audit.Verify(); err != nil || r.Entries != len(lines) {
		t.Fatalf("the new chain does not hold in itself, so this shows nothing: %+v, %v", r, err)
	}
	_, err = (&api{m: m}).VerifyAudit(t.Context())
	if e := mesh.AsError(err); e == nil || e.Rule != "audit.witness" {
		t.Fatalf("a rewritten log: %v", err)
	}
	if ok, err := m.logsContain(wire.Head{}, wire.Head{Seq: head.Seq, Hash: head.Hash}, m.Now().Add(-time.Minute)); err != nil || ok {
		t.Errorf("shown its former head: contained %t, %v", ok, err)
	}
}
