package member

import (
	"slices"
	"time"

	"peercompute/pkg/audit"
	"peercompute/pkg/heartbeat"
	"peercompute/pkg/mesh"
	"peercompute/pkg/wire"
)

// compareWitnessed holds the audit log against the heads that peers countersigned,
// and counts those. A chain that was written anew holds in itself, but not with them.
func (m *Member) compareWitnessed() (n int, err error) {
	all := m.Heart.Countersigned()
	for _, c := range all {
		was, ok := m.countersigned(c)
		if !ok || was.Incarnation != m.Store.Incarnation() {
			continue // of a state file that was given up, on record
		}
		ok, err := m.Audit.Contains(audit.Head{Seq: was.Audit.Seq, Hash: was.Audit.Hash}, time.UnixMilli(was.Time))
		if err != nil {
			return n, err
		}
		if !ok {
			return n, mesh.Errorf(mesh.Invalid, "the audit log was written anew: on %s %s countersigned entry %d as its head, and that is not in it",
				time.UnixMilli(was.Time).UTC().Format("2006-01-02 15:04:05 MST"), m.Trust.Name(c.Peer), was.Audit.Seq).WithRule("audit.witness").
				WithHint("somebody changed this node's state file: compare with an export from before; peers keep the head too")
		}
		n++
	}
	return n, nil
}

// countersigned is the heartbeat of this node's that a peer signed for, with the key
// that each had then.
func (m *Member) countersigned(c heartbeat.Countersigned) (*wire.Heartbeat, bool) {
	was, err := wire.OpenOwnHeartbeat(c.Beat, m.Mine)
	if err != nil {
		return nil, false
	}
	keys := append([]mesh.PeerID{c.Peer}, m.Trust.Former(c.Peer)...)
	return was, slices.ContainsFunc(keys, func(p mesh.PeerID) bool {
		_, err := wire.OpenPulse(c.Pulse, p, was.From, c.Beat)
		return err == nil
	})
}
