package control

import (
	"context"
	"net/http"
)

// Exec is POST /v1/workloads/{ref}/exec, which upgrades to UpgradeSession.
type Exec struct {
	Argv  []string `json:"argv"`
	TTY   bool     `json:"tty,omitempty"`
	Stdin bool     `json:"stdin,omitempty"` // it gets input
}

// ExecExit is how it ended, as JSON in the last frame.
type ExecExit struct {
	Status int `json:"status"`
}

func (s *Server) exec(w http.ResponseWriter, r *http.Request) {
	e, err := body[Exec](r)
	s.inside(w, r, err, func(ctx context.Context, ref, peer string, begin func() (Streams, error)) (any, error) {
		status, err := s.cfg.Workloads.Exec(ctx, ref, peer, e, begin)
		return ExecExit{status}, err
	})
}

// Exec runs a program inside a workload and returns its exit status. It is killed
// when ctx ends.
func (c *Client) Exec(ctx context.Context, ref, peer string, e Exec, io Streams) (int, error) {
	var x ExecExit
	err := c.inside(ctx, workloadPath(ref, "/exec", peer), e, e.Stdin, io, &x)
	return x.Status, err
}
