package control

import (
	"context"
	"net/http"
)

// Doctor is what a node answers when it is asked whether it is well.
type Doctor interface {
	Doctor(ctx context.Context) ([]Check, error)
}

// The states of a check.
const (
	CheckOK      = "ok"
	CheckWarning = "warning" // it works, and should be looked at
	CheckProblem = "problem" // something does not work
)

// Check is one thing that was looked at.
type Check struct {
	Name   string `json:"name"`
	State  string `json:"state"`
	Detail string `json:"detail"`
	Fix    string `json:"fix,omitempty"` // what to do, unless it is ok
}

func (s *Server) doctorRoutes(get func(string, handler)) {
	get("GET /v1/doctor", func(r *http.Request) (any, error) { return s.cfg.Members.Doctor(r.Context()) })
}

// Doctor looks at the node and its machine.
func (c *Client) Doctor(ctx context.Context) (checks []Check, err error) {
	return checks, c.call(ctx, "GET", "/v1/doctor", nil, &checks)
}
