package control

import (
	"context"
	"net/http"
	"net/url"

	"peercompute/pkg/mesh"
)

// Used is what one side used of the other's machine, by the receipts that hold.
type Used struct {
	Jobs int64  `json:"jobs"`
	Fuel uint64 `json:"fuel"` // units
}

// Balance is GET /v1/balance: what this machine and a peer used of each other since
// they met, by this machine's own count.
type Balance struct {
	Peer   string      `json:"peer"` // local name, or the ID of one that is not known any more
	PeerID mesh.PeerID `json:"peer_id"`
	There  Used        `json:"there"`            // by this machine, of the peer's
	Here   Used        `json:"here"`             // by the peer, of this machine
	Debtor string      `json:"debtor,omitempty"` // who used more: the peer's name or "self"; empty = even
	Net    uint64      `json:"net_fuel"`         // that the debtor used more
}

func (s *Server) balanceRoutes(get func(string, handler)) {
	get("GET /v1/balance", func(r *http.Request) (any, error) {
		return s.cfg.Workloads.Balance(r.Context(), r.URL.Query().Get("peer"))
	})
}

// Balance lists what is owed between this machine and its peers; with peer set, only
// that one.
func (c *Client) Balance(ctx context.Context, peer string) (bs []Balance, err error) {
	return bs, c.call(ctx, "GET", "/v1/balance?peer="+url.QueryEscape(peer), nil, &bs)
}
