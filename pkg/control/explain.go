package control

import (
	"context"
	"net/http"
	"net/url"

	"peercompute/pkg/mesh"
)

// Explanation is the answer to POST /v1/explain: what would be decided of a
// deploy, rule by rule. Nothing was done.
type Explanation struct {
	Peer   string       `json:"peer"` // who decides: a peer's local name, or "self"
	PeerID mesh.PeerID  `json:"peer_id"`
	Asker  mesh.PeerID  `json:"asker"` // this machine, as that peer knows it
	Allow  bool         `json:"allow"`
	Checks []mesh.Check `json:"checks"` // in the order in which they are asked; the first that does not pass decides
	Spec   mesh.Spec    `json:"spec"`   // with defaults filled in, and without its environment
}

// Decider answers what would be decided, and ends what a peer has here.
type Decider interface {
	Explain(ctx context.Context, d Deploy) (Explanation, error)
	StopFrom(ctx context.Context, peer string) ([]Workload, error)
}

func deciderRoutes(get func(string, handler), d Decider) {
	get("POST /v1/explain", func(r *http.Request) (any, error) {
		in, err := body[Deploy](r)
		if err != nil {
			return nil, err
		}
		return d.Explain(r.Context(), in)
	})
	get("POST /v1/peers/{peer}/stop", func(r *http.Request) (any, error) {
		return d.StopFrom(r.Context(), r.PathValue("peer"))
	})
}

// Explain asks what would be decided of a deploy.
func (c *Client) Explain(ctx context.Context, d Deploy) (e Explanation, err error) {
	return e, c.call(ctx, "POST", "/v1/explain", d, &e)
}

// StopFrom ends every workload on this machine that a peer deployed, and lists
// those that had not ended.
func (c *Client) StopFrom(ctx context.Context, peer string) (ws []Workload, err error) {
	return ws, c.call(ctx, "POST", "/v1/peers/"+url.PathEscape(peer)+"/stop", nil, &ws)
}
