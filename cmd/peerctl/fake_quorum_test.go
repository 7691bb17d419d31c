package main

import (
	"encoding/json"
	"fmt"
	"net/http"

	"peercompute/pkg/control"
	"peercompute/pkg/frame"
	"peercompute/pkg/mesh"
)

// runQuorum plays three peers by the first argument of their job: agree, one (of them
// differs), late (one is), broken (one fails), none (agree), burn (all their fuel, alike), silent
// (says nothing of a quorum).
func (n *fakeNode) runQuorum(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var q control.RunQuorum
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
		refuse(w, err)
		return
	}
	if err := q.Spec.Validate(); err != nil {
		refuse(w, err)
		return
	}
	line := func(peer, state string) control.Replica {
		return control.Replica{Peer: peer, PeerID: mustPeer(idBob), State: state, Receipt: "aaaabbbbccccdddd"}
	}
	got := &control.Quorum{Wanted: q.Quorum, Agreed: 3, Replicas: []control.Replica{
		line("bob", control.ReplicaAgrees), line("carol", control.ReplicaAgrees), line("dave", control.ReplicaAgrees),
	}}
	receipt := n.fakeReceipt("aaaabbbbccccdddd")
	end := control.RunResult{Peer: "bob", Quorum: got, Receipt: &receipt}
	third := &got.Replicas[2]
	switch args := append(q.Spec.Args, ""); args[0] {
	case "one":
		got.Agreed, third.State, third.Differs = 2, control.ReplicaDiffers, []string{"output sha256:bb, not sha256:aa", "fuel 8, not 9"}
	case "late":
		got.Agreed, third.State, third.Receipt = 2, control.ReplicaLate, ""
	case "broken":
		got.Agreed, third.State, third.Reason = 2, control.ReplicaFailed, "the connection\x1b]0;x\x07 was lost"
	case "none":
		got.Agreed, got.Replicas[0].State = 1, control.ReplicaAlone
		got.Replicas[1].State, got.Replicas[1].Differs = control.ReplicaDiffers, []string{"exit 1, not 0"}
		third.State, third.Reason = control.ReplicaFailed, "you may not deploy here"
	case "burn":
		end.Exit = mesh.Exit{Kind: mesh.OutOfFuel, Reason: "out of fuel after 9"}
	case "silent":
		end.Quorum = nil
	}
	begun, _ := json.Marshal(control.Started{Peer: "bob"})
	_ = frame.Write(w, control.FrameBegun, begun)
	if end.Quorum.Reached() {
		_ = frame.Write(w, control.FrameStdout, fmt.Appendf(nil, "input %s of %d\n", q.Input, q.Replicas))
	}
	b, _ := json.Marshal(end)
	_ = frame.Write(w, control.FrameExit, b)
}
