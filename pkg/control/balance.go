package control

import (
	"context"
	"net/http"
	"net/url"

	"peercompute/pkg/mesh"
)

// Used is what one side used of the other's machine. What this node used is by what
// the peer signed and this node did not contradict; what the peer used, by this node's
// own count.
type Used struct {
	Jobs             int64  `json:"jobs"`
	Fuel             uint64 `json:"fuel"` // units, of jobs
	ContainerSeconds uint64 `json:"container_seconds"`
}

// Balance is GET /v1/balance: what this machine and a peer used of each other since
// they met. What the debtor used less than the other side is negative.
type Balance struct {
	Peer                string      `json:"peer"` // local name, or the ID of one that is not known any more
	PeerID              mesh.PeerID `json:"peer_id"`
	There               Used        `json:"there"`            // by this machine, of the peer's
	Here                Used        `json:"here"`             // by the peer, of this machine
	Debtor              string      `json:"debtor,omitempty"` // the peer's name or "self", by the amount, else by the fuel, else by the seconds; empty = even
	NetFuel             int64       `json:"net_fuel"`         // that the debtor used more
	NetContainerSeconds int64       `json:"net_container_seconds"`
	Amount              *float64    `json:"amount,omitempty"` // what the debtor owes, where there is a price (see Lend)
	Flaw                string      `json:"flaw,omitempty"`   // in what the peer's latest statement contradicts what was asked for
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
