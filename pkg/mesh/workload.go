package mesh

import "time"

// Workload is a spec that a peer has accepted, with what identifies it.
type Workload struct {
	ID      WorkloadID `json:"id" cbor:"1,keyasint"`
	Owner   PeerID     `json:"owner" cbor:"2,keyasint"` // who signed the request; this machine's own ID for local ones
	Spec    Spec       `json:"spec" cbor:"3,keyasint"`  // defaults filled in
	Created time.Time  `json:"created" cbor:"4,keyasint"`
	// Again says that what Spec.Digest names ran here for this workload before, so that
	// an image may be found by its ID although its name means another one by now. It is
	// known only where the workload runs.
	Again bool `json:"again,omitempty" cbor:"-"`
}

// State is where a workload is in its life.
type State string

// The states. Exited, Failed and Stopped are final until somebody acts.
const (
	Pending  State = "pending"  // accepted, nothing done yet
	Pulling  State = "pulling"  // its image is being fetched or its module compiled
	Starting State = "starting" // started, not answering yet
	Running  State = "running"  // ready: it answers on its port (or has none)
	Exited   State = "exited"   // ended by itself; see ExitCode
	Failed   State = "failed"   // could not be started or kept up; see Reason
	Stopping State = "stopping"
	Stopped  State = "stopped" // on request
	Unknown  State = "unknown" // its peer does not answer
	Paused   State = "paused"  // wanted, and held back by its host for a while; see Reason
)

// Final reports whether a workload in this state will not move by itself.
func (s State) Final() bool { return s == Exited || s == Failed || s == Stopped }

// Status is what is true of a workload now.
type Status struct {
	State    State     `json:"state" cbor:"1,keyasint"`
	ExitCode int       `json:"exit_code,omitempty" cbor:"2,keyasint,omitempty"`
	Reason   string    `json:"reason,omitempty" cbor:"3,keyasint,omitempty"` // one line for people
	Since    time.Time `json:"since" cbor:"4,keyasint"`                      // when it entered State
	Restarts int       `json:"restarts,omitempty" cbor:"5,keyasint,omitempty"`
	Digest   string    `json:"digest,omitempty" cbor:"6,keyasint,omitempty"` // what really runs, once it is known
	URL      string    `json:"url,omitempty" cbor:"7,keyasint,omitempty"`    // public address, while it is routed
	Progress *Progress `json:"progress,omitempty" cbor:"8,keyasint,omitempty"`
	// PublishError says why it has no public address although one was asked for.
	PublishError string `json:"publish_error,omitempty" cbor:"9,keyasint,omitempty"`
	// Idle says that nothing of it runs now: the next request starts it.
	Idle bool `json:"idle,omitempty" cbor:"15,keyasint,omitempty"`
	// Health is HealthOK, or Unhealthy and why, of a running workload with a health
	// check; empty = it is not asked.
	Health string `json:"health,omitempty" cbor:"20,keyasint,omitempty"`
	// Held is what it does to others, and how it is slowed down for that, while it is.
	Held string `json:"held,omitempty" cbor:"21,keyasint,omitempty"`
}

// Progress is how far a long step has come.
type Progress struct {
	What  string `json:"what" cbor:"1,keyasint"`            // "pulling nginx:1.27"
	Done  int64  `json:"done" cbor:"2,keyasint"`            // bytes
	Total int64  `json:"total,omitempty" cbor:"3,keyasint"` // bytes; 0 = not known
}

// Exit is how a run ended.
type Exit struct {
	Code       int    `json:"code" cbor:"1,keyasint"`                            // the program's exit status
	Kind       Kind   `json:"kind,omitempty" cbor:"2,keyasint,omitempty"`        // why it was ended from outside: OutOfFuel, OutOfMemory, Timeout, Trap, Canceled; 0 = it ended itself
	Reason     string `json:"reason,omitempty" cbor:"3,keyasint,omitempty"`      // one line for people: "killed: memory 64 MiB"
	Fuel       uint64 `json:"fuel,omitempty" cbor:"4,keyasint,omitempty"`        // units of fuel/1 burnt
	PeakMemory int64  `json:"peak_memory,omitempty" cbor:"5,keyasint,omitempty"` // bytes
	Trace      string `json:"trace,omitempty" cbor:"6,keyasint,omitempty"`       // the guest's stack after a trap, with what names its module has
}

// Stats is a workload's consumption so far.
type Stats struct {
	CPU      time.Duration `json:"cpu" cbor:"1,keyasint"`                      // processor time
	Memory   int64         `json:"memory" cbor:"2,keyasint"`                   // bytes now
	PIDs     int64         `json:"pids,omitempty" cbor:"3,keyasint,omitempty"` // processes and threads; of a guest instances
	Fuel     uint64        `json:"fuel,omitempty" cbor:"4,keyasint,omitempty"`
	Disk     int64         `json:"disk,omitempty" cbor:"5,keyasint,omitempty"`     // bytes of scratch now
	Received int64         `json:"received,omitempty" cbor:"6,keyasint,omitempty"` // bytes from the network
	Sent     int64         `json:"sent,omitempty" cbor:"7,keyasint,omitempty"`
	// Bytes of its volumes that are not free, and of all of them.
	Volumes     int64 `json:"volumes,omitempty" cbor:"8,keyasint,omitempty"`
	VolumesSize int64 `json:"volumes_size,omitempty" cbor:"9,keyasint,omitempty"`
}
