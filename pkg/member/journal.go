package member

import (
	"peercompute/pkg/audit"
	"peercompute/pkg/event"
	"peercompute/pkg/mesh"
)

// tell publishes a change of trust. What changed is on disk already.
func (m *Member) tell(what string, p mesh.PeerID, detail string) {
	m.Events.Publish(event.Event{Type: event.Trust, Name: what, Peer: p, Detail: detail})
}

// strangers is the actor of all that people do who are not on the trust list: they
// can have as many names as they like.
const strangers = "strangers"

// refusedJoin puts on record that somebody knocked in vain.
func (m *Member) refusedJoin(p mesh.PeerID, err error) {
	e := mesh.AsError(err)
	m.Log.Info("refused a join", "peer", p, "err", err)
	m.Events.Publish(event.Event{Type: event.Trust, Name: "join.refused", Peer: p, Rule: e.Rule, Detail: e.Msg})
	m.Audit.Note(audit.Entry{Actor: strangers, Action: "join", Subject: p.String(), Rule: e.Rule, Outcome: audit.Refused, Detail: e.Msg})
}
