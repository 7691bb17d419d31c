package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

// This file plays what a node says about jobs.

// fakeReceipt is the receipt of a run of a module by bob.
func (n *fakeNode) fakeReceipt(id string) control.Receipt {
	hex := strings.Repeat("ab", 32)
	return control.Receipt{
		ID: mesh.WorkloadID(id), Role: "asked", Peer: "bob", PeerID: mustPeer(idBob), Asker: self, AskerID: mustPeer(idSelf),
		Module: "sha256:" + hex, Spec: "sha256:" + hex, Input: "sha256:" + hex, InputSize: 3, Output: "sha256:" + hex, OutputSize: 5,
		Log: "sha256:" + hex, Record: "sha256:" + hex, Request: "sha256:" + hex, Seed: hex,
		Exit: 7, Fuel: 123456, Schedule: "fuel/1", PeakMemory: 1 << 20, Capabilities: []string{"clock:virtual"},
		Started: n.began.Add(-time.Second), Ended: n.began, Envelope: []byte("signed " + id),
	}
}

func (n *fakeNode) jobRoutes(handle func(string, func(*http.Request) (any, error))) {
	all := func() []control.Receipt {
		good, bad := n.fakeReceipt("aaaabbbbccccdddd"), n.fakeReceipt("eeeeffffgggghhhh")
		good.Verified = []control.Verification{{By: "carol", At: n.began, Receipt: "kkkkllllmmmmnnnn", Agrees: true}}
		bad.Flaw, bad.Kind, bad.Reason, bad.Exit = "another output than was sent", "out-of-fuel", "out of fuel", 137
		return []control.Receipt{good, bad}
	}
	find := func(ref string) (control.Receipt, error) {
		for _, r := range all() {
			if strings.HasPrefix(string(r.ID), ref) {
				return r, nil
			}
		}
		return control.Receipt{}, mesh.Errorf(mesh.NotFound, "there is no receipt %s here", ref).WithHint("list them with: peerctl receipts ls")
	}
	handle("GET /v1/receipts", func(r *http.Request) (any, error) {
		out := []control.Receipt{}
		for _, x := range all() {
			x.Envelope = nil
			if p := r.URL.Query().Get("peer"); p == "" || p == x.Peer {
				out = append(out, x)
			}
		}
		return out, nil
	})
	handle("GET /v1/receipts/{id}", func(r *http.Request) (any, error) { return find(r.PathValue("id")) })
	handle("POST /v1/receipts/check", func(r *http.Request) (any, error) {
		var f control.ReceiptFile
		if err := json.NewDecoder(r.Body).Decode(&f); err != nil {
			return nil, err
		}
		id, ok := strings.CutPrefix(string(f.Envelope), "signed ")
		if !ok {
			return nil, mesh.Errorf(mesh.Forged, "the signature does not hold").WithRule("wire.envelope")
		}
		return find(id)
	})
}
