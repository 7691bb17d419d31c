package control

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"peercompute/pkg/mesh"
)

// This file is the part of the local API that is about who a node is and how its
// peers are.

// Liveness is how a peer is, as its heartbeats show.
type Liveness struct {
	State     string        `json:"state"` // alive, away, or unknown while nothing was heard yet
	Connected bool          `json:"connected"`
	Relayed   bool          `json:"relayed"`             // the connection goes through a relay
	Seen      time.Time     `json:"seen,omitzero"`       // the last sign of life
	RTT       time.Duration `json:"rtt,omitempty"`       // ns
	ClockOff  time.Duration `json:"clock_off,omitempty"` // ns that its clock is ahead (behind: negative), if that is over a minute
	Version   string        `json:"version,omitempty"`   // as it says
	Free      *Free         `json:"free,omitempty"`      // where it lets this machine observe
	Reason    string        `json:"reason,omitempty"`    // why it could not be reached
}

// Free is what a machine could still lend.
type Free struct {
	Workloads int   `json:"workloads"`
	MilliCPU  int64 `json:"milli_cpu"`
	Memory    int64 `json:"memory"`
	Disk      int64 `json:"disk"`
	Closed    bool  `json:"closed,omitempty"` // takes no new work now
}

// PeerState is a line of status.
type PeerState struct {
	Name string      `json:"name"`
	ID   mesh.PeerID `json:"id"`
	Liveness
}

// Alarm is something that the owner must look at.
type Alarm struct {
	ID    uint64    `json:"id"`
	Kind  string    `json:"kind"` // stable name, such as "peer.rolled-back"
	Peer  string    `json:"peer,omitempty"`
	Text  string    `json:"text"`
	Hint  string    `json:"hint,omitempty"`
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	Count int       `json:"count"`
}

// Rotate is POST /v1/identity/rotate: the node gets a new key and starts its network
// part again.
type Rotate struct {
	Overlap     time.Duration `json:"overlap"`               // ns in which peers take the old key too
	Compromised bool          `json:"compromised,omitempty"` // the old key may be in other hands: no overlap
}

// Rotation is what a change of the key came to.
type Rotation struct {
	Old         mesh.PeerID `json:"old"`
	New         mesh.PeerID `json:"new"`
	Until       time.Time   `json:"until"` // until when peers that were told take the old key too
	Compromised bool        `json:"compromised,omitempty"`
	Told        []string    `json:"told"`    // peers that have taken the new key
	Waiting     []Untold    `json:"waiting"` // peers that are told later
}

// Untold is a peer that does not know the new key yet, and why.
type Untold struct {
	Peer   string `json:"peer"`
	Reason string `json:"reason"`
}

// Identity is what every node answers about itself and its peers' state.
type Identity interface {
	Alarms(ctx context.Context) ([]Alarm, error)
	DismissAlarm(ctx context.Context, id uint64) (Alarm, error)
	Rotate(ctx context.Context, r Rotate) (Rotation, error)
	Export(ctx context.Context, e Export) ([]byte, error) // whole and encrypted
}

func (s *Server) identityRoutes(get func(string, handler)) {
	m := s.cfg.Members
	get("GET /v1/alarms", func(r *http.Request) (any, error) { return m.Alarms(r.Context()) })
	get("DELETE /v1/alarms/{id}", func(r *http.Request) (any, error) {
		id, err := strconv.ParseUint(r.PathValue("id"), 10, 64)
		if err != nil {
			return nil, mesh.Errorf(mesh.Invalid, "%q is not the number of an alarm", r.PathValue("id")).WithHint("list them with: peerctl alarms")
		}
		return m.DismissAlarm(r.Context(), id)
	})
	get("POST /v1/identity/rotate", func(r *http.Request) (any, error) {
		in, err := body[Rotate](r)
		if err != nil {
			return nil, err
		}
		return m.Rotate(r.Context(), in)
	})
}

// Alarms lists what the owner must look at.
func (c *Client) Alarms(ctx context.Context) (as []Alarm, err error) {
	return as, c.call(ctx, "GET", "/v1/alarms", nil, &as)
}

// DismissAlarm forgets an alarm that was seen.
func (c *Client) DismissAlarm(ctx context.Context, id string) (a Alarm, err error) {
	return a, c.call(ctx, "DELETE", "/v1/alarms/"+url.PathEscape(id), nil, &a)
}

// Rotate gives the node a new key.
func (c *Client) Rotate(ctx context.Context, r Rotate) (out Rotation, err error) {
	return out, c.call(ctx, "POST", "/v1/identity/rotate", r, &out)
}
