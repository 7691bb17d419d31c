package request

import (
	"peercompute/pkg/admission"
	"peercompute/pkg/audit"
	"peercompute/pkg/event"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
	"peercompute/pkg/wire"
)

// This file puts on record what came of requests. An effect records itself, in its
// own commit; here are the refusals, and the requests that have no effect.

// refused tells of a refusal and returns the entry for it.
func (s *Server) refused(p mesh.PeerID, what string, err error) audit.Entry {
	e := mesh.AsError(err)
	s.cfg.Log.Info("refused a request", "peer", p, "verb", what, "kind", e.Kind, "rule", e.Rule, "reason", e.Error())
	s.cfg.Events.Publish(event.Event{Type: event.Admission, Name: "refused", Peer: p, Subject: what, Rule: e.Rule, Detail: e.Msg})
	rule := e.Rule
	if rule == "" {
		rule = e.Kind.String()
	}
	return audit.Entry{Actor: p.String(), Action: what, Rule: rule, Outcome: audit.Refused, Detail: e.Msg}
}

// note writes an entry in the transaction of the answer, or counts it: then it is
// nil.
func (s *Server) note(e audit.Entry) func(*store.Tx) error {
	if !s.cfg.Audit.Often(e) {
		return nil
	}
	e.Time = s.cfg.Now()
	return func(tx *store.Tx) error { return audit.Append(tx, e) }
}

// recorded is commit, or for a request without an effect what is noted of it. A
// question of what would be decided is no decision, and leaves nothing but its
// nonce.
func (s *Server) recorded(t *admission.Ticket, commit func(*store.Tx) error) func(*store.Tx) error {
	if commit != nil || t.Verb == wire.VerbExplain {
		return commit
	}
	return s.note(audit.Entry{Actor: t.From.String(), Action: t.Verb.String(), Outcome: audit.Done})
}
