package gateway

import (
	"context"

	"peercompute/pkg/audit"
	"peercompute/pkg/event"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

// This file puts on record which names are routed, and tells of it.

func (g *Gateway) note(tx *store.Tx, p mesh.PeerID, action string, id mesh.WorkloadID, detail string) error {
	return audit.Append(tx, audit.Entry{
		Time: g.m.Now(), Actor: p.String(), Action: action, Subject: string(id), Rule: "grant.publish", Outcome: audit.Done, Detail: detail,
	})
}

func (g *Gateway) tell(what string, p mesh.PeerID, id mesh.WorkloadID, detail string) {
	g.m.Events.Publish(event.Event{Type: event.Tunnel, Name: what, Peer: p, Subject: string(id), Detail: detail})
}

// dropped records a name that was taken away although its publisher said nothing.
func (g *Gateway) dropped(r Route) {
	g.tell("drop", r.Publisher, r.Workload, r.Label)
	err := g.m.Store.Update(context.Background(), func(tx *store.Tx) error {
		return audit.Append(tx, audit.Entry{
			Time: g.m.Now(), Actor: audit.Node, Action: "unroute", Subject: string(r.Workload), Outcome: audit.Done, Detail: "nobody stands for " + r.Label,
		})
	})
	if err != nil {
		g.log.Error("cannot record that a name was dropped", "label", r.Label, "err", err)
	}
}
