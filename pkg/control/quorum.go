package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"net/http"

	"peercompute/pkg/mesh"
)

// RunQuorum is POST /v1/quorum: run a job on several trusted peers at once and return
// what a quorum of them agrees on. Its module and input were uploaded before.
type RunQuorum struct {
	Spec     mesh.Spec `json:"spec"`            // Runtime wasm, Shape job
	Input    string    `json:"input,omitempty"` // digest that POST /v1/inputs gave; empty = no input
	Replicas int       `json:"replicas"`        // peers that run it
	Quorum   int       `json:"quorum"`          // that must agree; more than half of the replicas
}

// Quorum is what came of it. There is a result only if Agreed reaches Wanted.
type Quorum struct {
	Wanted   int       `json:"quorum"`
	Agreed   int       `json:"agreed"`
	Replicas []Replica `json:"replicas"` // the peers that were asked, the nearest first
}

// Reached reports whether there is a result. Of nothing there is none.
func (q *Quorum) Reached() bool { return q != nil && q.Wanted > 0 && q.Agreed >= q.Wanted }

// The states of a Replica.
const (
	ReplicaAgrees  = "agrees"  // with most
	ReplicaAlone   = "alone"   // no other agrees with it, nor do others with each other
	ReplicaDiffers = "differs" // from those that agree, or from the one that is alone
	ReplicaFailed  = "failed"  // refused, broke off, or was ended from outside
	ReplicaLate    = "late"    // still ran when enough agreed; what it signs is kept and compared when it comes
)

// Replica is what one peer did.
type Replica struct {
	Peer    string          `json:"peer"`
	PeerID  mesh.PeerID     `json:"peer_id"`
	State   string          `json:"state"`
	Receipt mesh.WorkloadID `json:"receipt,omitempty"` // that is kept of its run
	Differs []string        `json:"differs,omitempty"`
	Reason  string          `json:"reason,omitempty"` // why it failed
}

func (s *Server) quorumRoutes(mux *http.ServeMux) {
	mux.HandleFunc("POST /v1/quorum", func(w http.ResponseWriter, r *http.Request) {
		q, err := body[RunQuorum](r)
		if err != nil {
			writeError(w, err)
			return
		}
		streamed(w, func(start StartJob) (RunResult, error) { return s.cfg.Workloads.RunQuorum(r.Context(), q, start) })
	})
}

// RunQuorum runs a job on several peers. What they agree on is written into s, and
// nothing if no quorum does: see RunResult.Quorum.
func (c *Client) RunQuorum(ctx context.Context, q RunQuorum, s JobStreams) (RunResult, error) {
	b, err := json.Marshal(q)
	if err != nil {
		return RunResult{}, err
	}
	req, err := http.NewRequestWithContext(ctx, "POST", "http://peerd/v1/quorum", bytes.NewReader(b))
	if err != nil {
		return RunResult{}, err
	}
	resp, err := c.roundTrip(req)
	if err != nil {
		return RunResult{}, err
	}
	defer resp.Body.Close()
	return s.follow(ctx, bufio.NewReader(resp.Body))
}
