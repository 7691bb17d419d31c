package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"time"

	"peercompute/pkg/mesh"
)

// Secret is all that is told of a secret.
type Secret struct {
	Peer string    `json:"peer"`
	Name string    `json:"name"`
	Set  time.Time `json:"set"`
	Used []string  `json:"used,omitempty"` // names of the workloads that get it
}

// Secrets are what containers read from files in memory.
type Secrets interface {
	SetSecret(ctx context.Context, peer, name string, value []byte) error
	RemoveSecret(ctx context.Context, peer, name string) error
	Secrets(ctx context.Context, peer string) ([]Secret, error)
}

func (s *Server) secretRoutes(mux *http.ServeMux) {
	answer := func(w http.ResponseWriter, v any, err error) {
		if err != nil {
			writeError(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	}
	peer := func(r *http.Request) string { return r.URL.Query().Get("peer") }
	mux.HandleFunc("GET /v1/secrets", func(w http.ResponseWriter, r *http.Request) {
		all, err := s.cfg.Workloads.Secrets(r.Context(), peer(r))
		answer(w, all, err)
	})
	mux.HandleFunc("DELETE /v1/secrets/{name}", func(w http.ResponseWriter, r *http.Request) {
		answer(w, struct{}{}, s.cfg.Workloads.RemoveSecret(r.Context(), peer(r), r.PathValue("name")))
	})
	// The value is the body as it is: nothing that a log or an error could quote.
	mux.HandleFunc("PUT /v1/secrets/{name}", func(w http.ResponseWriter, r *http.Request) {
		value, err := ReadSecret(r.Body)
		if err == nil {
			err = s.cfg.Workloads.SetSecret(r.Context(), peer(r), r.PathValue("name"), value)
		}
		answer(w, struct{}{}, err)
	})
}

// ReadSecret reads a value to its end, within the bound of one.
func ReadSecret(r io.Reader) ([]byte, error) {
	value, err := io.ReadAll(io.LimitReader(r, mesh.MaxSecret+1))
	if err != nil {
		return nil, errors.New("the secret cannot be read")
	}
	if len(value) > mesh.MaxSecret {
		return nil, mesh.Errorf(mesh.TooLarge, "a secret has at most %d KiB", mesh.MaxSecret>>10).WithRule("secret.size")
	}
	return value, nil
}

func secretPath(name, peer string) string {
	return "/v1/secrets/" + url.PathEscape(name) + "?peer=" + url.QueryEscape(peer)
}

// SetSecret keeps a secret on this machine or a peer.
func (c *Client) SetSecret(ctx context.Context, peer, name string, value []byte) error {
	req, err := http.NewRequestWithContext(ctx, "PUT", "http://peerd"+secretPath(name, peer), bytes.NewReader(value))
	if err != nil {
		return err
	}
	return c.do(req, &struct{}{})
}

// RemoveSecret forgets one that no workload uses.
func (c *Client) RemoveSecret(ctx context.Context, peer, name string) error {
	return c.call(ctx, "DELETE", secretPath(name, peer), nil, &struct{}{})
}

// Secrets lists those on this machine or a peer.
func (c *Client) Secrets(ctx context.Context, peer string) (all []Secret, err error) {
	return all, c.call(ctx, "GET", "/v1/secrets?peer="+url.QueryEscape(peer), nil, &all)
}
