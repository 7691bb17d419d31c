package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

// fakeDoor is the part of the played node where strangers knock.
type fakeDoor struct{ control.Knocking }

const fakePrint = "fv7w-fahd-vv8n-vfvj"

func (n *fakeNode) knockRoutes(mux *http.ServeMux, handle func(string, func(*http.Request) (any, error))) {
	door := &fakeDoor{}
	handle("GET /v1/knocks", func(*http.Request) (any, error) { return door.Knocking, nil })
	handle("PUT /v1/knocks", func(r *http.Request) (any, error) {
		var k control.LetKnock
		if err := json.NewDecoder(r.Body).Decode(&k); err != nil {
			return nil, err
		}
		now := time.Now()
		door.Knocking = control.Knocking{Open: true, Until: now.Add(k.For), Pending: []control.Pending{{
			ID: mustPeer(idAlice), Fingerprint: fakePrint, Name: "alice", Remote: "/ip4/192.0.2.8/tcp/50000", Since: now, Until: now.Add(10 * time.Minute),
		}}}
		return door.Knocking, nil
	})
	handle("DELETE /v1/knocks", func(*http.Request) (any, error) {
		door.Knocking = control.Knocking{}
		return door.Knocking, nil
	})
	handle("POST /v1/knocks/{ref}/approve", func(r *http.Request) (any, error) {
		if r.PathValue("ref") != fakePrint {
			return nil, mesh.Errorf(mesh.NotFound, "nobody who knocks has the fingerprint %q", r.PathValue("ref"))
		}
		var a control.Approve
		if err := json.NewDecoder(r.Body).Decode(&a); err != nil {
			return nil, err
		}
		p := control.Peer{ID: mustPeer(idAlice), Name: "alice", Added: n.began}
		applyGrant(&p.Grant, a.Change)
		return p, nil
	})
	handle("GET /v1/neighbours", func(*http.Request) (any, error) {
		return []control.Neighbour{
			{ID: mustPeer(idBob), Name: "bob", Trusted: true, Addrs: []string{"/ip4/192.0.2.7/tcp/4001/p2p/" + idBob}},
			{ID: mustPeer(idAlice), Name: "eve", Addrs: []string{"/ip4/192.0.2.8/tcp/4001/p2p/" + idAlice + "\x1b[31m"}},
		}, nil
	})
	handle("POST /v1/invites", func(*http.Request) (any, error) {
		return control.Invite{ID: "1a2b3c4d", Token: "peerjoin1-" + strings.Repeat("A", 380), Expires: time.Now().Add(time.Hour), Uses: 1}, nil
	})
	mux.HandleFunc("POST /v1/knock", func(w http.ResponseWriter, r *http.Request) {
		var k control.KnockAt
		if json.NewDecoder(r.Body).Decode(&k) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		enc := json.NewEncoder(w)
		_ = enc.Encode(control.KnockEvent{Waiting: true, Fingerprint: fakePrint, Until: time.Now().Add(10 * time.Minute)})
		if strings.HasSuffix(k.Addr, idAlice) {
			_ = enc.Encode(control.KnockEvent{Error: asControl(mesh.Errorf(mesh.Denied, "its owner said no").WithRule("knock.denied"))})
			return
		}
		if k.Name == "" {
			k.Name = "peer-298l3"
		}
		_ = enc.Encode(control.KnockEvent{Peer: &control.Peer{ID: mustPeer(idBob), Name: k.Name, Addrs: []string{"/ip4/192.0.2.7/tcp/4001"}}})
	})
}
