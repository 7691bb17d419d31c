package member

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"slices"
	"strings"

	"peercompute/pkg/audit"
	"peercompute/pkg/control"
	"peercompute/pkg/event"
	"peercompute/pkg/mesh"
)

// This file tells the local person what the node decided and did.

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

const auditBatch = 256 // entries read at once, so that a slow reader holds no snapshot

// eachLine calls fn for every entry, the oldest first.
func (m *Member) eachLine(ctx context.Context, fn func(audit.Line) error) error {
	for from := uint64(1); ; {
		batch, err := m.Audit.Read(from, auditBatch)
		if err != nil || len(batch) == 0 {
			return err
		}
		for _, l := range batch {
			if err := fn(l); err != nil {
				return err
			}
		}
		if from = batch[len(batch)-1].Seq + 1; ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

func (a *api) Audit(ctx context.Context, q control.AuditQuery, emit func(control.AuditEntry) error) error {
	match, err := a.actedOn(q.Peer)
	if err != nil {
		return err
	}
	var last []audit.Line // a ring, once it is full
	n := 0
	err = a.m.eachLine(ctx, func(l audit.Line) error {
		switch {
		case !match(l.Entry) || l.Time.Before(q.Since):
			return nil
		case q.Last == 0:
			return emit(a.line(l))
		case len(last) < q.Last:
			last = append(last, l)
		default:
			last[n%q.Last] = l
		}
		n++
		return nil
	})
	for i := range last {
		if err == nil {
			err = emit(a.line(last[(n+i)%len(last)]))
		}
	}
	return err
}

// actedOn selects the entries that a peer (by name, ID or the start of one) caused
// or that are about it. A peer that was removed is found by its whole ID.
func (a *api) actedOn(ref string) (func(audit.Entry) bool, error) {
	switch ref {
	case "":
		return func(audit.Entry) bool { return true }, nil
	case audit.Local, audit.Node, strangers:
		return func(e audit.Entry) bool { return e.Actor == ref }, nil
	case "self":
		return func(e audit.Entry) bool { return e.Actor == audit.Local }, nil
	}
	id := ref
	if _, err := mesh.ParsePeerID(ref); err != nil {
		g, err := a.m.Trust.Find(ref)
		if err != nil {
			return nil, mesh.Errorf(mesh.NotFound, "no peer is called %q here", ref).
				WithHint("one that was removed is found by its whole ID; or give local, node or strangers")
		}
		id = g.Peer.String()
	}
	return func(e audit.Entry) bool { return e.Actor == id || e.Subject == id || strings.Contains(e.Detail, id) }, nil
}

func (a *api) line(l audit.Line) control.AuditEntry {
	out := control.AuditEntry{
		Seq: l.Seq, Time: l.Time, Actor: l.Actor, Action: l.Action, Subject: l.Subject, Rule: l.Rule,
		Outcome: l.Outcome, Detail: l.Detail, Count: l.Count, Hash: l.Hash.String(),
	}
	if p, err := mesh.ParsePeerID(l.Actor); err == nil {
		out.Actor, out.ActorID = a.m.Trust.Name(p), l.Actor
	}
	return out
}

func (a *api) ExportAudit(ctx context.Context, w io.Writer) error {
	out := bufio.NewWriter(w)
	enc := json.NewEncoder(out)
	if err := a.m.eachLine(ctx, func(l audit.Line) error { return enc.Encode(l) }); err != nil {
		return err
	}
	return out.Flush()
}

func (a *api) VerifyAudit(context.Context) (control.AuditReport, error) {
	r, err := a.m.Audit.Verify()
	out := report(r)
	if err != nil {
		return out, err
	}
	out.Witnessed, err = a.m.compareWitnessed()
	return out, err
}

func report(r audit.Report) control.AuditReport {
	return control.AuditReport{Entries: r.Entries, First: r.First, HeadSeq: r.Head.Seq, HeadHash: r.Head.Hash.String()}
}

func (a *api) VerifyExport(_ context.Context, in io.Reader) (control.AuditReport, error) {
	r, err := audit.VerifyExport(in)
	out := report(r)
	if err != nil {
		return out, err
	}
	s, err := a.m.Audit.Standing(r.Head)
	out.Standing = map[audit.Standing]string{audit.Held: "held", audit.Dropped: "dropped", audit.Foreign: "foreign"}[s]
	return out, err
}

// Events tells of the last events and, with Follow, of those to come.
func (a *api) Events(ctx context.Context, q control.EventQuery, emit func(control.Event) error) error {
	var types []event.Type
	for _, t := range q.Types {
		if !slices.Contains(event.Types(), event.Type(t)) {
			return mesh.Errorf(mesh.Invalid, "%q is no type of event", t).
				WithHint("the types are: trust, admission, workload, tunnel, connection")
		}
		types = append(types, event.Type(t))
	}
	last, s := a.m.Events.Subscribe(q.Last, types...)
	defer s.Close()
	for _, e := range last {
		if err := emit(a.event(e)); err != nil {
			return err
		}
	}
	for q.Follow {
		select {
		case e := <-s.C:
			if err := emit(a.event(e)); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

func (a *api) event(e event.Event) control.Event {
	out := control.Event{
		Seq: e.Seq, Time: e.Time, Type: string(e.Type), Event: e.Name, PeerID: e.Peer,
		Subject: e.Subject, Rule: e.Rule, Detail: e.Detail, Missed: e.Missed,
	}
	if e.Peer != "" {
		out.Peer = a.m.Trust.Name(e.Peer)
	}
	return out
}
