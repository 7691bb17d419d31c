package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"peercompute/pkg/control"
	"peercompute/pkg/frame"
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
	n.queueRoutes(handle)
	handle("GET /v1/balance", func(r *http.Request) (any, error) {
		out := []control.Balance{}
		for _, b := range []control.Balance{
			{
				Peer: "bob", PeerID: mustPeer(idBob), There: control.Used{Jobs: 3, Fuel: 1_500_000_000, ContainerSeconds: 600}, Here: control.Used{Jobs: 1, Fuel: 4_000_000_000},
				Debtor: "bob", NetFuel: 2_500_000_000, NetContainerSeconds: -600,
			},
			{Peer: "carol", PeerID: mustPeer(idAlice), There: control.Used{Jobs: 2, Fuel: 7}, Debtor: self, NetFuel: 7},
		} {
			if n.lends.PriceGFuel > 0 {
				amount := float64(b.NetFuel)/1e9*n.lends.PriceGFuel + float64(b.NetContainerSeconds)*n.lends.PriceContainerSecond
				b.Amount = &amount
			}
			if p := r.URL.Query().Get("peer"); p == "" || p == b.Peer {
				out = append(out, b)
			}
		}
		return out, nil
	})
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
	// Carol agrees with bob, and dave does not. The input is kept of none but aaaa….
	handle("POST /v1/verify", func(r *http.Request) (any, error) {
		var v control.Verify
		if err := json.NewDecoder(r.Body).Decode(&v); err != nil {
			return nil, err
		}
		first, err := find(v.Receipt)
		if err != nil {
			return nil, err
		}
		if first.Flaw != "" && v.Input == "" {
			return nil, mesh.Errorf(mesh.NotFound, "the input %s is not here", first.Input).WithHint("give it again with --input FILE")
		}
		out := control.VerifyResult{Agrees: v.By != "dave", Receipt: first, Again: n.fakeReceipt("kkkkllllmmmmnnnn")}
		out.Again.Peer, out.Again.Exit = v.By, first.Exit
		if !out.Agrees {
			out.Differs = []string{"output sha256:cc, not " + first.Output, "fuel 8, not 123456"}
		}
		return out, nil
	})
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

// queueRoutes plays a queue: a job is done at once, unless its first argument says
// wait, and does nothing but say its input's digest.
func (n *fakeNode) queueRoutes(handle func(string, func(*http.Request) (any, error))) {
	find := func(r *http.Request) (*control.Job, error) {
		for i, j := range n.queued {
			if strings.HasPrefix(string(j.ID), r.PathValue("ref")) {
				return &n.queued[i], nil
			}
		}
		return nil, mesh.Errorf(mesh.NotFound, "there is no job %q", r.PathValue("ref")).WithHint("list them with: peerctl job ls")
	}
	handle("POST /v1/inputs", func(r *http.Request) (any, error) {
		b, err := io.ReadAll(r.Body)
		if err != nil || len(b) == 0 {
			return control.Input{}, err
		}
		return control.Input{Digest: fmt.Sprintf("sha256:%x", sha256.Sum256(b)), Size: int64(len(b))}, nil
	})
	handle("POST /v1/jobs", func(r *http.Request) (any, error) {
		var s control.SubmitJob
		if err := json.NewDecoder(r.Body).Decode(&s); err != nil {
			return nil, err
		}
		if err := s.Spec.Validate(); err != nil {
			return nil, err
		}
		j := control.Job{
			ID: mesh.NewWorkloadID(sha256.Sum256(fmt.Append(nil, "job ", len(n.queued)))), Name: s.Spec.Name, Peer: s.Peer, PeerID: mustPeer(idBob),
			Owner: self, OwnerID: mustPeer(idSelf), Module: s.Spec.Digest, State: "done", Submitted: n.began, Exit: &mesh.Exit{Fuel: 1234}, Attempts: 1,
		}
		if s.Any {
			j.Peer = "bob"
		}
		switch args := append(s.Spec.Args, ""); args[0] {
		case "wait":
			j.State, j.Exit, j.Ahead = "queued", nil, 2
		case "burn":
			j.Exit = &mesh.Exit{Code: 137, Kind: mesh.OutOfFuel, Reason: "out of fuel", Fuel: 9}
		case "old":
			j.Dropped = true
		case "exit":
			j.Exit.Code = 7
		}
		n.inputs = append(n.inputs, s.Input)
		n.queued = append(n.queued, j)
		return j, nil
	})
	handle("GET /v1/jobs", func(*http.Request) (any, error) { return n.queued, nil })
	handle("GET /v1/jobs/{ref}", func(r *http.Request) (any, error) {
		j, err := find(r)
		if err != nil {
			return nil, err
		}
		return *j, nil
	})
	handle("POST /v1/jobs/{ref}/cancel", func(r *http.Request) (any, error) {
		j, err := find(r)
		if err != nil {
			return nil, err
		}
		if j.State != "done" {
			j.State, j.Exit, j.Ahead = "done", &mesh.Exit{Code: 137, Kind: mesh.Canceled, Reason: "canceled"}, 0
		}
		return *j, nil
	})
}

// jobOutput plays what a job wrote.
func (n *fakeNode) jobOutput(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var o control.JobOutput
	if err := json.NewDecoder(r.Body).Decode(&o); err != nil {
		refuse(w, err)
		return
	}
	for i, j := range n.queued {
		if !strings.HasPrefix(string(j.ID), r.PathValue("ref")) {
			continue
		}
		if j.Dropped && !o.Quiet {
			refuse(w, mesh.Errorf(mesh.NotFound, "the output of job %s is not kept any more", j.ID))
			return
		}
		end := control.RunResult{ID: j.ID, Peer: j.Peer, State: j.State}
		if j.Exit != nil {
			end.Exit = *j.Exit
		}
		if !o.Quiet {
			_ = frame.Write(w, control.FrameStdout, fmt.Appendf(nil, "input %s\n", n.inputs[i]))
			_ = frame.Write(w, control.FrameStderr, []byte("a \x1b]0;title\x07line\n"))
		}
		b, _ := json.Marshal(end)
		_ = frame.Write(w, control.FrameExit, b)
		return
	}
	refuse(w, mesh.Errorf(mesh.NotFound, "there is no job %q", r.PathValue("ref")))
}
