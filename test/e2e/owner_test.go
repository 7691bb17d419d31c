package e2e

import (
	"context"
	"testing"
	"time"

	"peercompute/pkg/mesh"
	"peercompute/pkg/wire"
	"peercompute/test/internal/testmesh"
)

// To a trusted peer another peer's workload does not exist: whatever it asks by
// the workload's ID is refused, and the workload is as before.
func TestOnlyTheOwnerReachesAWorkload(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice, bob := m.Peer("alice"), m.Peer("bob")
	m.Lend(bob, alice)
	w := deploy(t, alice, testmesh.Tiny(t, "hers"), "--peer", "bob", "--name", "hers")
	s := newSender(t, bob)
	ref := wire.Ref{Workload: mesh.WorkloadID(w.ID), Force: true}
	for verb, body := range map[wire.Verb]any{
		wire.VerbStop: ref, wire.VerbRemove: ref, wire.VerbInspect: ref, wire.VerbWatch: ref, wire.VerbHide: ref, wire.VerbRestart: ref,
		wire.VerbLogs: wire.Logs{Workload: ref.Workload}, wire.VerbForward: wire.Forward{Workload: ref.Workload},
		wire.VerbStats:   wire.Stats{Workloads: []mesh.WorkloadID{ref.Workload}},
		wire.VerbHistory: ref, wire.VerbRollback: wire.Rollback{Workload: ref.Workload},
		wire.VerbExec:    wire.Exec{Workload: ref.Workload, Argv: []string{"/program"}},
		wire.VerbCopyOut: wire.CopyOut{Workload: ref.Workload, Path: "/tmp"},
		wire.VerbCopyIn:  wire.CopyIn{Workload: ref.Workload, Path: "/tmp"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		st, err := s.Requests.Open(ctx, bob.ID(), verb, body, nil)
		if err == nil {
			st.Reset()
		}
		cancel()
		if mesh.KindOf(err) != mesh.NotFound {
			t.Errorf("%s of another's workload: %v, want NotFound", verb, err)
		}
	}
	// Asked for all that is there, it is told of nothing of hers.
	var stats wire.StatsReply
	if err := s.Requests.Do(t.Context(), bob.ID(), wire.VerbStats, wire.Stats{}, &stats); err != nil || len(stats.Workloads) > 0 {
		t.Errorf("stats of all: %+v, %v", stats, err)
	}
	list := ps(t, alice)
	if len(list) != 1 || list[0].State != "running" {
		t.Errorf("afterwards alice sees %+v, want it running", list)
	}
}
