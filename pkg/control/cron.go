package control

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"peercompute/pkg/mesh"
)

// Crons is what a node answers about jobs that it queues again and again.
type Crons interface {
	CreateCron(ctx context.Context, c NewCron) (Cron, error)
	Crons(ctx context.Context) ([]Cron, error)
	PauseCron(ctx context.Context, name string) (Cron, error)
	ResumeCron(ctx context.Context, name string) (Cron, error)
	RemoveCron(ctx context.Context, name string) (Cron, error)
}

// NewCron is POST /v1/crons. Its module and input were uploaded before.
type NewCron struct {
	Name     string    `json:"name"`     // a DNS label
	Schedule string    `json:"schedule"` // as in crontab(5), or @daily, "@every 90m"
	Peer     string    `json:"peer"`     // name or ID; "" or "self" = this machine if no other choice is possible
	Spec     mesh.Spec `json:"spec"`     // Runtime wasm, Shape job
	Input    string    `json:"input,omitempty"`
}

// Cron is one of them.
type Cron struct {
	Name     string          `json:"name"`
	Schedule string          `json:"schedule"`
	Peer     string          `json:"peer"`
	Module   string          `json:"module"`
	Made     time.Time       `json:"made"`
	Paused   bool            `json:"paused"`
	Due      time.Time       `json:"due"`               // the next time
	Last     time.Time       `json:"last,omitzero"`     // the latest time for which it was queued
	Job      mesh.WorkloadID `json:"job,omitempty"`     // and as what
	Missed   int             `json:"missed"`            // times that were not queued, because nobody was there
	Failure  string          `json:"failure,omitempty"` // why the latest attempt came to nothing; it is tried again
}

func (s *Server) cronRoutes(get func(string, handler)) {
	w := s.cfg.Workloads
	get("GET /v1/crons", func(r *http.Request) (any, error) { return w.Crons(r.Context()) })
	get("POST /v1/crons", func(r *http.Request) (any, error) {
		c, err := body[NewCron](r)
		if err != nil {
			return nil, err
		}
		return w.CreateCron(r.Context(), c)
	})
	for verb, act := range map[string]func(context.Context, string) (Cron, error){"pause": w.PauseCron, "resume": w.ResumeCron} {
		get("POST /v1/crons/{name}/"+verb, func(r *http.Request) (any, error) { return act(r.Context(), r.PathValue("name")) })
	}
	get("DELETE /v1/crons/{name}", func(r *http.Request) (any, error) { return w.RemoveCron(r.Context(), r.PathValue("name")) })
}

// CreateCron queues a job whenever its schedule says.
func (c *Client) CreateCron(ctx context.Context, n NewCron) (out Cron, err error) {
	return out, c.call(ctx, "POST", "/v1/crons", n, &out)
}

// Crons lists what is queued again and again, by name.
func (c *Client) Crons(ctx context.Context) (out []Cron, err error) {
	return out, c.call(ctx, "GET", "/v1/crons", nil, &out)
}

// PauseCron makes one wait until ResumeCron.
func (c *Client) PauseCron(ctx context.Context, name string) (out Cron, err error) {
	return out, c.call(ctx, "POST", "/v1/crons/"+url.PathEscape(name)+"/pause", nil, &out)
}

// ResumeCron lets one go on, with its next time.
func (c *Client) ResumeCron(ctx context.Context, name string) (out Cron, err error) {
	return out, c.call(ctx, "POST", "/v1/crons/"+url.PathEscape(name)+"/resume", nil, &out)
}

// RemoveCron drops one; its jobs stay.
func (c *Client) RemoveCron(ctx context.Context, name string) (out Cron, err error) {
	return out, c.call(ctx, "DELETE", "/v1/crons/"+url.PathEscape(name), nil, &out)
}
