package main

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"time"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

var playedAt = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func playedAudit() []control.AuditEntry {
	return []control.AuditEntry{
		{Seq: 7, Time: playedAt, Actor: "local", Action: "grant.put", Subject: idBob, Outcome: "done", Detail: "bob: may deploy", Hash: "aa"},
		{Seq: 8, Time: playedAt, Actor: "bob", ActorID: idBob, Action: "deploy", Subject: "aaaaaaaaaaaaaaaa", Rule: "grant", Outcome: "done", Detail: "hello", Hash: "ab"},
		{Seq: 9, Time: playedAt, Actor: "bob", ActorID: idBob, Action: "deploy", Rule: "grant.memory", Outcome: "refused", Detail: "memory 2 GiB", Count: 412, Hash: "ac"},
	}
}

func playedEvents() []control.Event {
	return []control.Event{
		{Seq: 1, Time: playedAt, Type: "trust", Event: "grant.put", Peer: "bob", PeerID: mustPeer(idBob), Detail: "may deploy"},
		{Seq: 2, Time: playedAt, Type: "workload", Event: "running", Subject: "aaaaaaaaaaaaaaaa"},
		{Seq: 9, Time: playedAt, Type: "admission", Event: "refused", Peer: "bob", PeerID: mustPeer(idBob), Subject: "deploy", Rule: "grant.memory", Missed: 6},
	}
}

// journalRoutes play a node's record, events and decisions. An export that says
// "edited" does not verify.
func (n *fakeNode) journalRoutes(mux *http.ServeMux, handle func(string, func(*http.Request) (any, error))) {
	mux.HandleFunc("GET /v1/audit", func(w http.ResponseWriter, r *http.Request) {
		enc := json.NewEncoder(w)
		for _, e := range playedAudit() {
			if p := r.URL.Query().Get("peer"); p == "" || p == e.Actor {
				_ = enc.Encode(e)
			}
		}
	})
	mux.HandleFunc("GET /v1/audit/export", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{\"seq\":1}\n") })
	handle("GET /v1/audit/verify", func(*http.Request) (any, error) {
		return control.AuditReport{Entries: 3, First: 7, HeadSeq: 9, HeadHash: "ac"}, nil
	})
	handle("POST /v1/audit/verify", func(r *http.Request) (any, error) {
		b, err := io.ReadAll(r.Body)
		if strings.Contains(string(b), "edited") {
			return nil, mesh.Errorf(mesh.Invalid, "the audit log is broken at entry 2: it was changed").WithRule("audit.chain").WithHint("compare with an export from before")
		}
		return control.AuditReport{Entries: 1, First: 1, HeadSeq: 1, HeadHash: "aa", Standing: "foreign"}, err
	})
	mux.HandleFunc("GET /v1/events", func(w http.ResponseWriter, r *http.Request) {
		enc := json.NewEncoder(w)
		for _, e := range playedEvents() {
			if t := r.URL.Query().Get("type"); t == "" || t == e.Type {
				_ = enc.Encode(e)
			}
		}
	})
	handle("POST /v1/peers/{peer}/stop", func(r *http.Request) (any, error) {
		if _, err := n.peer(r.PathValue("peer")); err != nil {
			return nil, err
		}
		out := []control.Workload{}
		for i, w := range n.workloads {
			if w.Owner == r.PathValue("peer") {
				setState(&n.workloads[i], mesh.Stopped)
				out = append(out, n.workloads[i])
			}
		}
		return out, nil
	})
	handle("POST /v1/explain", func(r *http.Request) (any, error) {
		var d control.Deploy
		if err := json.NewDecoder(r.Body).Decode(&d); err != nil {
			return nil, err
		}
		fits := d.Spec.Resources.Memory <= 1<<30
		memory := mesh.Check{Rule: "grant.memory", Want: formatSize(d.Spec.Resources.Memory), Held: "0 B", Limit: "1 GiB", Pass: fits}
		if !fits {
			memory.Reason, memory.Ask = "memory 2 GiB exceeds your grant of 1 GiB there", "--memory 2GiB"
		}
		return control.Explanation{
			Peer: d.Peer, PeerID: mustPeer(idBob), Asker: mustPeer(idSelf), Allow: fits,
			Checks: []mesh.Check{{Rule: "trust", Pass: true, Limit: "known as me"}, memory}, Spec: d.Spec,
		}, nil
	})
}
