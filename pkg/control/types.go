// Package control is the local API of peerd and peergate: its types, the client
// that peerctl uses, and the server. It speaks HTTP and JSON over a unix socket
// in the node's home directory that only its owner can open. It makes no
// decisions and knows no libp2p host.
package control

import (
	"time"

	"peercompute/pkg/mesh"
)

// SocketName is the socket's file name inside a node's home.
const SocketName = "peerd.sock"

// Whoami is GET /v1/whoami.
type Whoami struct {
	ID      mesh.PeerID `json:"id"`
	Addrs   []string    `json:"addrs"` // each ends in /p2p/ID
	Role    string      `json:"role"`  // "peer" or "gateway"
	Version string      `json:"version"`
}

// Grant is what a peer may do on this machine. Everything is off by default; a
// zero quota means nothing of it.
type Grant struct {
	Allow     []string       `json:"allow"`     // of observe, deploy, migrate, route, publish, exec; sorted
	Workloads int            `json:"workloads"` // at once
	Resources mesh.Resources `json:"resources"` // sums over its workloads
	Names     int            `json:"names"`     // public names at once (on a gateway)
	Requests  int            `json:"requests"`  // signed requests a minute
	FuelDay   uint64         `json:"fuel_day"`  // units of schedule fuel/1 a day, which ends at midnight UTC
	Images    []string       `json:"images"`    // patterns of what it may run; "any" = everything
	Egress    []string       `json:"egress"`    // kinds of egress besides none
	SignedBy  []string       `json:"signed_by"` // keys, of which one must have signed what runs; empty = not asked for
	Until     time.Time      `json:"until,omitzero"`
	Ended     bool           `json:"ended,omitempty"` // it is past Until: the peer is denied
}

// GrantChange edits a grant: nil fields stay as they are.
type GrantChange struct {
	Allow     *[]string `json:"allow,omitempty"`
	Workloads *int      `json:"workloads,omitempty"`
	MilliCPU  *int64    `json:"milli_cpu,omitempty"`
	Memory    *int64    `json:"memory,omitempty"`
	Disk      *int64    `json:"disk,omitempty"`
	Names     *int      `json:"names,omitempty"`
	Requests  *int      `json:"requests,omitempty"`
	FuelDay   *uint64   `json:"fuel_day,omitempty"`
	Images    *[]string `json:"images,omitempty"`
	Egress    *[]string `json:"egress,omitempty"`
	SignedBy  *[]string `json:"signed_by,omitempty"`
	Until     *Until    `json:"until,omitempty"`
}

// Until says when a grant ends: at a time, after a while, or never (the zero value).
type Until struct {
	At  time.Time     `json:"at,omitzero"`
	For time.Duration `json:"for,omitempty"` // ns from now, by the node's clock
}

// Peer is one entry of the trust list.
type Peer struct {
	ID        mesh.PeerID `json:"id"`
	Name      string      `json:"name"`
	Addrs     []string    `json:"addrs"` // known multiaddrs, without /p2p/ID
	Grant     Grant       `json:"grant"`
	Added     time.Time   `json:"added"`
	Connected bool        `json:"connected"`
	Remote    string      `json:"remote,omitempty"` // multiaddr of the live connection
	Usage     *Usage      `json:"usage,omitempty"`  // what it uses of its grant now; a gateway reports only names
	Liveness  Liveness    `json:"liveness"`
}

// Usage is what a peer uses of its grant.
type Usage struct {
	Workloads int            `json:"workloads"`
	Resources mesh.Resources `json:"resources"`  // sums over its workloads, as counted
	Names     int            `json:"names"`      // public names
	FuelToday uint64         `json:"fuel_today"` // burnt today, or reserved for jobs under way
	FuelOpens time.Time      `json:"fuel_opens,omitzero"`
}

// AddPeer is POST /v1/peers. ID may be empty if an address ends in /p2p/ID.
// Without Change.Allow the peer is known and reachable but may do nothing here.
type AddPeer struct {
	ID     string      `json:"id,omitempty"`
	Name   string      `json:"name,omitempty"` // a DNS label; empty = chosen from the ID
	Addrs  []string    `json:"addrs,omitempty"`
	Change GrantChange `json:"grant"`
}

// NewInvite is POST /v1/invites.
type NewInvite struct {
	TTL    time.Duration `json:"ttl"` // ns
	Uses   int           `json:"uses"`
	Name   string        `json:"name,omitempty"` // for the one who joins; empty = as it calls itself
	As     string        `json:"as,omitempty"`   // what this machine calls itself
	Change GrantChange   `json:"grant"`          // what joining allows here
}

// Invite is an open invite. Token is set only in the answer that made it.
type Invite struct {
	ID      string    `json:"id"`
	Token   string    `json:"token,omitempty"`
	Expires time.Time `json:"expires"`
	Uses    int       `json:"uses"` // that are left
	Allow   []string  `json:"allow"`
	Name    string    `json:"name,omitempty"`
}

// JoinInvite is POST /v1/join; the answer is the Peer that invited.
type JoinInvite struct {
	Token  string      `json:"token"`
	Name   string      `json:"name,omitempty"` // for the inviter; empty = as it calls itself
	As     string      `json:"as,omitempty"`   // what this machine calls itself
	Change GrantChange `json:"grant"`          // what the inviter may do here; nothing unless said
}

// Lockdown is the answer to POST and DELETE /v1/lockdown.
type Lockdown struct {
	Locked  bool              `json:"locked"`
	Since   time.Time         `json:"since,omitzero"`
	Stopped []mesh.WorkloadID `json:"stopped"` // workloads here that were told to stop
}

// Pause is POST /v1/pause. The answer to it and to DELETE /v1/pause is a LendState.
type Pause struct {
	For  time.Duration `json:"for,omitempty"`  // ns; 0 = until resumed
	Then string        `json:"then,omitempty"` // what becomes of running work: keep, pause or stop; empty = keep
}

// LendState is whether peers' new work is taken now.
type LendState struct {
	Open   bool      `json:"open"`
	Paused bool      `json:"paused"`           // by the owner's word; without it the schedule decides
	Reason string    `json:"reason,omitempty"` // why it is closed, to go behind "paused: "
	Opens  time.Time `json:"opens,omitzero"`   // when it opens; zero = nobody can say
	Closes time.Time `json:"closes,omitzero"`  // when the schedule closes it; zero = never, or when the machine is used
	Then   string    `json:"then,omitempty"`   // while closed: what becomes of running work
}

// Lend is GET /v1/lend, and the answer to PATCH and DELETE: what this machine lends
// to all peers together.
type Lend struct {
	Workloads int       `json:"workloads"`
	MilliCPU  int64     `json:"milli_cpu"`
	Memory    int64     `json:"memory"`
	Disk      int64     `json:"disk"`
	Reserve   int64     `json:"reserve_memory"` // bytes of memory that stay for this machine
	When      string    `json:"when"`
	Then      string    `json:"then"`
	Set       []string  `json:"set"` // what was set with PATCH; the rest is from the configuration
	State     LendState `json:"state"`
	Used      Usage     `json:"used"`                // by all workloads here, the owner's included
	Available int64     `json:"available,omitempty"` // bytes of memory now; 0 = not known
	Idle      string    `json:"idle,omitempty"`      // what was measured, where the schedule asks

	// What Balance reckons with, in a currency of the owner's own; 0 = nothing.
	PriceGFuel           float64 `json:"price_gfuel,omitempty"` // of 1,000,000,000 units of fuel
	PriceContainerSecond float64 `json:"price_container_second,omitempty"`
}

// LendChange is PATCH /v1/lend: nil fields stay as they are. DELETE drops all that
// was set, so that the configuration counts again.
type LendChange struct {
	Workloads *int    `json:"workloads,omitempty"`
	MilliCPU  *int64  `json:"milli_cpu,omitempty"`
	Memory    *int64  `json:"memory,omitempty"`
	Disk      *int64  `json:"disk,omitempty"`
	Reserve   *int64  `json:"reserve,omitempty"`
	When      *string `json:"when,omitempty"`
	Then      *string `json:"then,omitempty"`

	PriceGFuel           *float64 `json:"price_gfuel,omitempty"`
	PriceContainerSecond *float64 `json:"price_container_second,omitempty"`
}

// RemovedPeer is the answer to DELETE /v1/peers/{peer}?keep=true|false.
type RemovedPeer struct {
	ID      mesh.PeerID       `json:"id"`
	Name    string            `json:"name"`
	Stopped []mesh.WorkloadID `json:"stopped"` // its workloads that were stopped here
}

// Workload is one line of ps and the whole of inspect.
type Workload struct {
	ID      mesh.WorkloadID `json:"id"`
	Name    string          `json:"name"`
	Peer    string          `json:"peer"`    // where it runs: the local name of the peer, or "self"
	PeerID  mesh.PeerID     `json:"peer_id"` // where it runs
	Owner   string          `json:"owner"`   // who deployed it: local name, "self", or the ID of a peer not known by name
	OwnerID mesh.PeerID     `json:"owner_id"`
	Kind    mesh.Runtime    `json:"kind"`
	Shape   mesh.Shape      `json:"shape,omitempty"`
	Image   string          `json:"image"`
	State   mesh.State      `json:"state"`
	URL     string          `json:"url"` // empty while it has none
	Status  mesh.Status     `json:"status"`
	Spec    *mesh.Spec      `json:"spec,omitempty"` // inspect only
	Created time.Time       `json:"created"`

	Revision int     `json:"revision,omitempty"` // that serves
	Update   *Update `json:"update,omitempty"`   // the revision that is to take over, or could not
	Project  string  `json:"project,omitempty"`  // of Compose
}

// Update is how a revision stands that does not serve.
type Update struct {
	Revision int         `json:"revision"`
	Status   mesh.Status `json:"status"`
}

// Revision is one version of a workload, in GET /v1/workloads/{ref}/history.
type Revision struct {
	Number  int         `json:"number"`
	Image   string      `json:"image"`
	Digest  string      `json:"digest,omitempty"` // what ran, once it is known
	By      string      `json:"by"`               // who asked for it: local name, "self", or an ID
	ByID    mesh.PeerID `json:"by_id"`
	Time    time.Time   `json:"time"`
	Outcome string      `json:"outcome"` // serving, coming, replaced, failed, given up
	Failure string      `json:"failure,omitempty"`
	Note    string      `json:"note,omitempty"`
}

// Rollback is POST /v1/workloads/{ref}/rollback. The answer is that of a deploy.
type Rollback struct {
	To       int  `json:"to,omitempty"` // 0 = the revision that served before
	Recreate bool `json:"recreate,omitempty"`
	Wait     bool `json:"wait"`
}

// Deploy is POST /v1/deploy. The answer is a stream of DeployEvent, one JSON
// object a line.
type Deploy struct {
	Peer string    `json:"peer"`           // name or unique ID prefix; "" or "self" = this machine if no other choice is possible
	Spec mesh.Spec `json:"spec"`           // Digest of a module uploaded by POST /v1/modules
	Wait bool      `json:"wait"`           // report until it answers (or fails); else return when accepted
	Push bool      `json:"push,omitempty"` // send the image along, from this machine
	// Recreate says that an update stops what runs before it starts the new revision.
	Recreate bool `json:"recreate,omitempty"`
	// Ends says that with Wait to be up is to have ended, and well.
	Ends bool `json:"ends,omitempty"`
}

// DeployEvent is one step of a deploy. The last one has Done set, or Error.
type DeployEvent struct {
	Workload *Workload      `json:"workload,omitempty"` // its state changed
	Progress *mesh.Progress `json:"progress,omitempty"`
	Log      []string       `json:"log,omitempty"`  // with Error: the last lines of its log
	Note     string         `json:"note,omitempty"` // what the person should know
	Done     bool           `json:"done,omitempty"`
	Error    *Error         `json:"error,omitempty"`
}

// Module is the answer to POST /v1/modules, whose body is the module itself.
type Module struct {
	Digest string `json:"digest"` // sha256:…
	Size   int64  `json:"size"`
}

// Status is GET /v1/status.
type Status struct {
	Whoami
	Uptime    time.Duration `json:"uptime"` // ns
	Runtimes  []Runtime     `json:"runtimes"`
	Peers     int           `json:"peers"`
	Connected int           `json:"connected"`
	// PeerStates says how each trusted peer is, sorted by name.
	PeerStates []PeerState `json:"peer_states"`
	Workloads  int         `json:"workloads"` // running here
	// Volumes here, and the bytes of the disk that are set aside for them.
	Volumes     int        `json:"volumes"`
	VolumesSize int64      `json:"volumes_size"`
	Lending     *LendState `json:"lending,omitempty"`
	Routes      []Route    `json:"routes"` // peerd: its gateways' names; peergate: all that it serves
	Tunnels     []Tunnel   `json:"tunnels"`
	Warnings    []string   `json:"warnings"` // what this platform or machine cannot do
}

// Runtime is one driver and whether it can be used now.
type Runtime struct {
	Kind   mesh.Runtime `json:"kind"`
	Ready  bool         `json:"ready"`
	Detail string       `json:"detail"` // version, or why not
}

// Route is one public name.
type Route struct {
	URL      string          `json:"url"`
	Workload mesh.WorkloadID `json:"workload"`
	Peer     string          `json:"peer"` // the other end: on a gateway the publisher, on a peer the gateway
	Up       bool            `json:"up"`
}

// Tunnel is a connection between a peer and a gateway.
type Tunnel struct {
	Peer    string `json:"peer"` // name of the other end
	Up      bool   `json:"up"`
	Detail  string `json:"detail,omitempty"` // why it is down, and when it is tried again
	Address string `json:"address,omitempty"`
}

// Publish is POST /v1/workloads/{ref}/publish; the answer is a Workload.
type Publish struct {
	Gateway string `json:"gateway,omitempty"`
}

// Error is the body of every answer that is not 2xx.
type Error struct {
	Kind string    `json:"kind"` // the stable name of a mesh.Kind
	Code mesh.Kind `json:"code"`
	Rule string    `json:"rule,omitempty"` // the rule that refused
	Msg  string    `json:"message"`
	Hint string    `json:"hint,omitempty"`
	Peer string    `json:"peer,omitempty"` // who refused, if not this machine
}
