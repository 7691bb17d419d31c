package node

import (
	"fmt"
	"strings"
	"sync"

	"peercompute/pkg/audit"
	"peercompute/pkg/event"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

// This file puts on record what is done to the workloads here, and tells of it.

// actor is who does it, as the audit log names them.
func (n *Node) actor(who mesh.PeerID) string {
	if who == n.m.Key.ID {
		return audit.Local
	}
	return who.String()
}

func (n *Node) entry(actor, action string, w mesh.Workload, detail string) audit.Entry {
	if detail == "" {
		detail = w.Spec.Name
	} else {
		detail = w.Spec.Name + ": " + detail
	}
	if owner := n.actor(w.Owner); owner != actor {
		detail += ", of " + owner
	}
	return audit.Entry{Time: n.m.Now(), Actor: actor, Action: action, Subject: string(w.ID), Outcome: audit.Done, Detail: detail}
}

// note records a change that who makes, in its transaction.
func (n *Node) note(tx *store.Tx, who mesh.PeerID, action string, w mesh.Workload, detail string) error {
	e := n.entry(n.actor(who), action, w, detail)
	if who != n.m.Key.ID {
		e.Rule = "grant"
	}
	return audit.Append(tx, e)
}

// noteLocal records what the local person decided about lending.
func (n *Node) noteLocal(tx *store.Tx, action, detail string) error {
	return audit.Append(tx, audit.Entry{Time: n.m.Now(), Actor: audit.Local, Action: action, Outcome: audit.Done, Detail: detail})
}

// refusedLocally records that a rule refused the local person something.
func (n *Node) refusedLocally(err error) {
	if e := mesh.AsError(err); e.Rule != "" {
		n.m.Audit.Note(audit.Entry{Actor: audit.Local, Action: "request", Rule: e.Rule, Outcome: audit.Refused, Detail: e.Msg})
	}
}

// describe says what runs, with nothing that may be secret: neither arguments nor
// environment.
func describe(s mesh.Spec) string {
	r := s.Resources
	what := []string{string(s.Runtime), s.Image}
	if s.Digest != "" {
		what = append(what, s.Digest)
	}
	what = append(what, fmt.Sprintf("%d mCPU, %d B memory, egress %s", r.MilliCPU, r.Memory, s.Egress))
	return strings.Join(what, " ")
}

const maxStates = 4096

// states remembers which state of each workload was told last, so that progress
// within one is no event.
type states struct {
	mu   sync.Mutex
	last map[mesh.WorkloadID]mesh.State
}

func (s *states) tell(to *event.Bus, id mesh.WorkloadID, st mesh.Status) {
	s.mu.Lock()
	if s.last == nil {
		s.last = map[mesh.WorkloadID]mesh.State{}
	}
	known := s.last[id] == st.State
	if !known && len(s.last) >= maxStates {
		clear(s.last) // some are told once more
	}
	s.last[id] = st.State
	s.mu.Unlock()
	if !known {
		to.Publish(event.Event{Type: event.Workload, Name: string(st.State), Subject: string(id), Detail: st.Reason})
	}
}

func upOrDown(up bool) string {
	if up {
		return "up"
	}
	return "down"
}
