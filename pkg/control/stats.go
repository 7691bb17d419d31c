package control

import (
	"context"
	"net/http"
	"time"

	"peercompute/pkg/mesh"
)

// StatsQuery is POST /v1/stats. The answer is a stream of StatsSample, one JSON
// object a line.
type StatsQuery struct {
	Refs  []string      `json:"refs,omitempty"` // names or unique ID prefixes; none = all that run
	Peer  string        `json:"peer,omitempty"`
	Every time.Duration `json:"every,omitempty"` // ns between samples, at least a second; 0 = one sample
}

// StatsSample is what workloads use at one moment.
type StatsSample struct {
	Workloads []Stats `json:"workloads"` // sorted by peer and name
	// Missing names the peers that did not answer, with the reason.
	Missing map[string]string `json:"missing,omitempty"`
}

// Stats is what one workload uses, and may use.
type Stats struct {
	ID     mesh.WorkloadID `json:"id"`
	Name   string          `json:"name"`
	Peer   string          `json:"peer"`
	Kind   mesh.Runtime    `json:"kind"`
	Time   time.Time       `json:"time"` // by the clock of its peer
	Limits mesh.Resources  `json:"limits"`
	Used   mesh.Stats      `json:"used"`
}

func (s *Server) stats(w http.ResponseWriter, r *http.Request) {
	q, err := body[StatsQuery](r)
	if err == nil && q.Every != 0 && q.Every < time.Second {
		err = mesh.Errorf(mesh.Invalid, "samples are at least a second apart")
	}
	lines(w, r, err, nil, func(emit func(StatsSample) error) error { return s.cfg.Workloads.Stats(r.Context(), q, emit) })
}

// Stats calls each with every sample.
func (c *Client) Stats(ctx context.Context, q StatsQuery, each func(StatsSample) error) error {
	resp, err := c.stream(ctx, "POST", "/v1/stats", q)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return eachOf(resp.Body, func(err error) error { return lost(ctx, err) }, each)
}
