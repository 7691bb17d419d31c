package control

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"time"

	"peercompute/pkg/mesh"
)

// This file is how machines meet without a token: by knocking, and by looking
// around on the local network.

// Knocking is GET, PUT and DELETE /v1/knocks: whether strangers may knock, and who
// does.
type Knocking struct {
	Open    bool      `json:"open"`
	Until   time.Time `json:"until,omitzero"`
	Pending []Pending `json:"pending"` // the one who has waited longest first
}

// LetKnock is the body of PUT /v1/knocks.
type LetKnock struct {
	For time.Duration `json:"for"` // ns
}

// Pending is a stranger who waits for an answer. All but ID, Fingerprint and Remote
// is what it says itself.
type Pending struct {
	ID          mesh.PeerID `json:"id"`
	Fingerprint string      `json:"fingerprint"`    // the same on both machines, if nobody is in between
	Name        string      `json:"name,omitempty"` // what it would like to be called; a DNS label
	Addrs       []string    `json:"addrs"`
	Remote      string      `json:"remote"` // multiaddr that it came from
	Since       time.Time   `json:"since"`
	Until       time.Time   `json:"until"` // how long it waits at most
}

// Approve is POST /v1/knocks/{ref}/approve; the answer is a Peer. A ref is a whole
// fingerprint or ID.
type Approve struct {
	Name   string      `json:"name,omitempty"` // local name; empty = as it calls itself
	Change GrantChange `json:"grant"`
}

// KnockAt is POST /v1/knock. The answer is a stream of KnockEvent, one JSON object
// a line.
type KnockAt struct {
	Addr   string      `json:"addr"`           // ends in /p2p/ID
	Name   string      `json:"name,omitempty"` // local name for the other; empty = chosen from its ID
	As     string      `json:"as,omitempty"`   // what this machine calls itself
	Change GrantChange `json:"grant"`          // what the other may do here; nothing unless said
}

// KnockEvent is one step of knocking. The last one has Peer set, or Error.
type KnockEvent struct {
	Waiting     bool      `json:"waiting,omitempty"` // the other's owner is to decide
	Fingerprint string    `json:"fingerprint,omitempty"`
	Until       time.Time `json:"until,omitzero"` // how long it waits at most
	Peer        *Peer     `json:"peer,omitempty"` // approved: the entry made here
	Error       *Error    `json:"error,omitempty"`
}

// Neighbour is one node that announces itself on the local network. Name is what
// it says, unless it is trusted: then it is its name here.
type Neighbour struct {
	ID      mesh.PeerID `json:"id"`
	Name    string      `json:"name,omitempty"`
	Addrs   []string    `json:"addrs"` // each ends in /p2p/ID
	Trusted bool        `json:"trusted"`
}

// Meeting is what every node answers about strangers.
type Meeting interface {
	Knocks(ctx context.Context) (Knocking, error)
	LetKnock(ctx context.Context, d time.Duration) (Knocking, error) // 0 = no longer
	ApproveKnock(ctx context.Context, ref string, a Approve) (Peer, error)
	DenyKnock(ctx context.Context, ref string) (Pending, error)
	Knock(ctx context.Context, k KnockAt, emit func(KnockEvent) error) error
	Discover(ctx context.Context, d time.Duration) ([]Neighbour, error)
}

func (s *Server) meetingRoutes(mux *http.ServeMux, get func(string, handler)) {
	m := s.cfg.Members
	get("GET /v1/knocks", func(r *http.Request) (any, error) { return m.Knocks(r.Context()) })
	get("PUT /v1/knocks", func(r *http.Request) (any, error) {
		k, err := body[LetKnock](r)
		if err == nil && k.For <= 0 {
			err = mesh.Errorf(mesh.Invalid, "strangers may knock for some time, not for %s", k.For)
		}
		if err != nil {
			return nil, err
		}
		return m.LetKnock(r.Context(), k.For)
	})
	get("DELETE /v1/knocks", func(r *http.Request) (any, error) { return m.LetKnock(r.Context(), 0) })
	get("POST /v1/knocks/{ref}/approve", func(r *http.Request) (any, error) {
		a, err := body[Approve](r)
		if err != nil {
			return nil, err
		}
		return m.ApproveKnock(r.Context(), r.PathValue("ref"), a)
	})
	get("POST /v1/knocks/{ref}/deny", func(r *http.Request) (any, error) { return m.DenyKnock(r.Context(), r.PathValue("ref")) })
	get("GET /v1/neighbours", func(r *http.Request) (any, error) {
		d := defaultDiscover
		if s := r.URL.Query().Get("timeout"); s != "" {
			var err error
			if d, err = time.ParseDuration(s); err != nil {
				return nil, mesh.Errorf(mesh.Invalid, "timeout=%q is not a time", s)
			}
		}
		if d <= 0 || d > maxDiscover {
			return nil, mesh.Errorf(mesh.Invalid, "looking around takes up to %s, not %s", maxDiscover, d)
		}
		return m.Discover(r.Context(), d)
	})
	mux.HandleFunc("POST /v1/knock", s.knock)
}

const (
	defaultDiscover = 5 * time.Second
	maxDiscover     = time.Minute
)

func (s *Server) knock(w http.ResponseWriter, r *http.Request) {
	k, err := body[KnockAt](r)
	lines(w, r, err, func(e *Error) KnockEvent { return KnockEvent{Error: e} }, func(emit func(KnockEvent) error) error {
		return s.cfg.Members.Knock(r.Context(), k, emit)
	})
}

// Knocks lists who waits for an answer.
func (c *Client) Knocks(ctx context.Context) (k Knocking, err error) {
	return k, c.call(ctx, "GET", "/v1/knocks", nil, &k)
}

// LetKnock lets strangers knock for d; 0 ends it.
func (c *Client) LetKnock(ctx context.Context, d time.Duration) (k Knocking, err error) {
	if d == 0 {
		return k, c.call(ctx, "DELETE", "/v1/knocks", nil, &k)
	}
	return k, c.call(ctx, "PUT", "/v1/knocks", LetKnock{For: d}, &k)
}

// ApproveKnock trusts one who knocks, by its whole fingerprint or ID.
func (c *Client) ApproveKnock(ctx context.Context, ref string, a Approve) (p Peer, err error) {
	return p, c.call(ctx, "POST", "/v1/knocks/"+url.PathEscape(ref)+"/approve", a, &p)
}

// DenyKnock sends one who knocks away, for a while.
func (c *Client) DenyKnock(ctx context.Context, ref string) (p Pending, err error) {
	return p, c.call(ctx, "POST", "/v1/knocks/"+url.PathEscape(ref)+"/deny", nil, &p)
}

// Discover lists the nodes that announce themselves on the local network.
func (c *Client) Discover(ctx context.Context, d time.Duration) (n []Neighbour, err error) {
	return n, c.call(ctx, "GET", "/v1/neighbours?timeout="+url.QueryEscape(d.String()), nil, &n)
}

// Knock asks another node to trust this one and waits for its owner's answer. on
// sees each step.
func (c *Client) Knock(ctx context.Context, k KnockAt, on func(KnockEvent)) (Peer, error) {
	resp, err := c.stream(ctx, "POST", "/v1/knock", k)
	if err != nil {
		return Peer{}, err
	}
	defer resp.Body.Close()
	dec := json.NewDecoder(resp.Body)
	for {
		var ev KnockEvent
		if err := dec.Decode(&ev); err != nil {
			if ctx.Err() != nil {
				return Peer{}, ctx.Err()
			}
			return Peer{}, mesh.Errorf(mesh.Unavailable, "peerd ended the answer early").WithHint("look with: peerctl peers ls").Because(err)
		}
		if on != nil {
			on(ev)
		}
		if ev.Error != nil {
			return Peer{}, ev.Error.Err()
		}
		if ev.Peer != nil {
			return *ev.Peer, nil
		}
	}
}
