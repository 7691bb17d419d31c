package main

import (
	"io"
	"net/http"
	"strings"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

// secretRoutes plays a peer that keeps one secret, and remembers what was set last.
func (n *fakeNode) secretRoutes(handle func(string, func(*http.Request) (any, error))) {
	handle("GET /v1/secrets", func(r *http.Request) (any, error) {
		if r.URL.Query().Get("peer") == "carol" {
			return []control.Secret{}, nil
		}
		return []control.Secret{{Peer: "bob", Name: "db\x1b[1m", Set: n.began, Used: []string{"web", "api"}}}, nil
	})
	handle("PUT /v1/secrets/{name}", func(r *http.Request) (any, error) {
		b, err := io.ReadAll(r.Body)
		if strings.TrimSuffix(string(b), "\n") != "hunter2" { // typed, or from a file
			return nil, mesh.Errorf(mesh.Invalid, "the secret came with %d bytes", len(b))
		}
		return struct{}{}, err
	})
	handle("DELETE /v1/secrets/{name}", func(r *http.Request) (any, error) {
		if r.PathValue("name") == "db" {
			return nil, mesh.Errorf(mesh.Conflict, "the secret db is in use by web").WithRule("secret.in-use")
		}
		return struct{}{}, nil
	})
}
