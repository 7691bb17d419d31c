package control

import (
	"context"
	"net/http"

	"peercompute/pkg/mesh"
)

// Compose is what a node makes of Compose files; it deploys nothing of them.
type Compose interface {
	ReadCompose(ctx context.Context, f ComposeFile) (ComposeProject, error)
}

// ComposeFile is POST /v1/compose: a file and what it refers to. The node reads
// nothing from disk.
type ComposeFile struct {
	Name    string            `json:"name"` // for messages
	Dir     string            `json:"dir"`  // absolute; paths in the file are relative to it
	Text    []byte            `json:"text"`
	Files   map[string][]byte `json:"files"`   // .env and environment files; null = it is not there
	Environ []string          `json:"environ"` // KEY=VALUE

	Profiles []string `json:"profiles,omitempty"`
}

// ComposeProject is the answer: the services, or which environment files to send
// along.
type ComposeProject struct {
	Name     string           `json:"name"`
	Services []ComposeService `json:"services"` // each after those that it depends on
	Secrets  []ComposeSecret  `json:"secrets,omitempty"`
	Needs    []string         `json:"needs,omitempty"`
}

// ComposeSecret is a secret whose value lies in a file of the caller's, which the node
// does not read.
type ComposeSecret struct {
	Name string `json:"name"`
	File string `json:"file"` // absolute
}

// ComposeService is one workload of a Compose file.
type ComposeService struct {
	Spec  mesh.Spec `json:"spec"`
	Build *Build    `json:"build,omitempty"` // nil = the spec has an image
	Ends  bool      `json:"ends,omitempty"`  // what comes after it waits until it has ended, and well
	Notes []string  `json:"notes,omitempty"` // what of it is otherwise than the file says
}

func (s *Server) composeRoutes(get func(string, handler)) {
	get("POST /v1/compose", func(r *http.Request) (any, error) {
		f, err := body[ComposeFile](r)
		if err != nil {
			return nil, err
		}
		return s.cfg.Workloads.ReadCompose(r.Context(), f)
	})
}

// ReadCompose has the node make workloads of a Compose file.
func (c *Client) ReadCompose(ctx context.Context, f ComposeFile) (p ComposeProject, err error) {
	return p, c.call(ctx, "POST", "/v1/compose", f, &p)
}
