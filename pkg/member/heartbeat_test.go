package member

import (
	"context"
	"strings"
	"testing"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
	"peercompute/pkg/wire"
)

// A node that is shown that its state was rolled back denies everybody and voids
// what was signed for that state, also across a restart, until the owner has looked.
func TestRolledBackNodeDeniesEverybody(t *testing.T) {
	home := shortDir(t)
	m := mustOpen(t, home)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	hooks := Hooks{Halt: func(context.Context) ([]mesh.WorkloadID, error) { return nil, nil }}
	a := &api{m: m, hooks: hooks}
	peer := otherPeer(t)
	if _, err := a.AddPeer(ctx, control.AddPeer{ID: peer.String(), Name: "bob"}); err != nil {
		t.Fatal(err)
	}
	seq, hash := m.Trust.Head()
	evidence := &wire.Heartbeat{Incarnation: m.Store.Incarnation(), Trust: wire.Head{Seq: seq, Hash: hash}}
	if ok, err := m.logsContain(evidence.Trust, evidence.Audit, m.Now()); err != nil || !ok {
		t.Fatalf("the log does not contain its own head: %v", err)
	}
	evidence.Trust.Seq++
	if ok, err := m.logsContain(evidence.Trust, evidence.Audit, m.Now()); err != nil || ok {
		t.Fatalf("the log contains what it never held: %v", err)
	}
	before := m.Store.Incarnation()
	m.rolledBack(ctx, peer, evidence)
	m.rolledBack(ctx, peer, evidence) // another peer says the same
	after := m.Store.Incarnation()
	if before == after || m.Trust.Allowed(peer) {
		t.Fatalf("incarnation changed: %t, bob allowed: %t", before != after, m.Trust.Allowed(peer))
	}
	m.Close()
	m = mustOpen(t, home)
	defer m.Close()
	a = &api{m: m, hooks: hooks}
	if m.Store.Incarnation() != after || m.Trust.Allowed(peer) {
		t.Fatal("a restart undoes it")
	}
	s, err := a.Status(ctx)
	if err != nil || !strings.Contains(strings.Join(s.Warnings, "\n"), "bob saw this node's logs") {
		t.Fatalf("status warns of %q, %v", s.Warnings, err)
	}
	alarms, err := a.Alarms(ctx)
	if err != nil || len(alarms) != 1 || alarms[0].Kind != "self.rolled-back" || alarms[0].Hint == "" {
		t.Fatalf("alarms: %+v, %v", alarms, err)
	}
	if _, err := a.Unlock(ctx); err != nil || !m.Trust.Allowed(peer) || m.Store.Incarnation() != after {
		t.Fatalf("after unlock: %v", err)
	}
}
