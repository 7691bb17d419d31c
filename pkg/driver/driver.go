// Package driver is the contract of a runtime: what peerd asks of whatever runs
// workloads. It knows no runtime itself. Every implementation passes the suite in
// pkg/driver/drivertest.
package driver

import (
	"context"
	"io"
	"net"
	"time"

	"peercompute/pkg/mesh"
)

// Driver runs workloads of one kind. Its methods may be called from many
// goroutines; calls about one workload are serialised by the caller.
type Driver interface {
	// Prepare makes what w runs available on this machine (pulls the image,
	// compiles the module) and returns the digest of what will really run
	// ("sha256:…"). It reports progress at most a few times a second. If
	// w.Spec.Digest is set and differs, it fails with mesh.Denied. Idempotent.
	Prepare(ctx context.Context, w mesh.Workload, progress func(mesh.Progress)) (digest string, err error)

	// Start runs w, prepared before, and returns once it is started; it need not
	// answer yet. Anything left of an earlier run of the same w.ID is removed
	// first. ctx bounds only the start, not the life of the task. On error
	// nothing of w is left running.
	Start(ctx context.Context, w mesh.Workload) (Task, error)

	// Adopt returns a task for each workload of this node that still runs, or has
	// ended but is still known to the runtime, after peerd itself restarted.
	Adopt(ctx context.Context) ([]Task, error)

	// Remove deletes whatever is left of a workload that does not run: its
	// container, network, scratch and log. No error if nothing is left.
	Remove(ctx context.Context, id mesh.WorkloadID) error

	// Logs reads the log of a workload, also after it ended, until Remove. When ctx
	// ends a Next that waits ends too; Close is not for use beside a Next.
	Logs(ctx context.Context, id mesh.WorkloadID, o LogOptions) (LogReader, error)
}

// Task is one run of a workload.
type Task interface {
	ID() mesh.WorkloadID
	// Dial connects to the workload's port. It fails with mesh.Unavailable while
	// nothing listens there.
	Dial(ctx context.Context) (net.Conn, error)
	// Wait blocks until the run has ended, or ctx has.
	Wait(ctx context.Context) (mesh.Exit, error)
	Stats(ctx context.Context) (mesh.Stats, error)
	// Stop ends the run: politely, and after grace by force. When it returns nil
	// nothing of the run executes any more. Stopping an ended task is no error.
	Stop(ctx context.Context, grace time.Duration) error
}

// Pauser is implemented by tasks that can be frozen: they execute nothing then, keep
// what they hold in memory, and go on later as if nothing had been. A frozen task
// can be stopped, outlives peerd, and is adopted frozen.
type Pauser interface {
	// Pause returns nil once nothing of the run executes. No error if it is frozen already.
	Pause(ctx context.Context) error
	// Resume lets it go on. No error if it is not frozen.
	Resume(ctx context.Context) error
}

// Sleeper is implemented by tasks of which nothing runs until somebody wants
// something of them.
type Sleeper interface {
	// Idle reports whether that is so now.
	Idle() bool
}

// Holder is implemented by tasks that are slowed down for what they do to others.
type Holder interface {
	// Held is what it does and what comes of it, in one line for people; empty = nothing.
	Held() string
}

// PortDialer is implemented by tasks that may listen on more ports than the
// workload's one.
type PortDialer interface {
	// DialPort is Dial for another port.
	DialPort(ctx context.Context, port uint16) (net.Conn, error)
}

// Prober is implemented by tasks inside which a short program can be run, to see
// whether they are well.
type Prober interface {
	// Probe runs argv with no more rights than the workload itself has and returns
	// its exit status. When ctx ends first the program is killed. Only one runs at a
	// time: the next Probe fails with mesh.Timeout until it has ended.
	Probe(ctx context.Context, argv []string) (status int, err error)
}

// Processes is implemented by drivers that run workloads in processes of this
// machine that work for one owner each.
type Processes interface {
	// Processes is who each living process works for, by its ID.
	Processes() map[int]mesh.PeerID
}

// Runner is implemented by drivers that can run a job for whoever waits for it.
type Runner interface {
	// Run executes w to its end. It returns an error only if the job could not be
	// run at all; how it ended is in Ran. It stops the job when ctx ends.
	Run(ctx context.Context, w mesh.Workload, j Job) (Ran, error)
}

// Seed is what a job's random bytes follow from. Same module, same input, same
// seed: same run.
type Seed [32]byte

// Job is what a run of a job is given besides its workload.
type Job struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Seed           Seed
	// Whole says that all of Stdin is there already: a read gives as much as was
	// asked for. Otherwise reads give what has come, and how much is observed.
	Whole bool
	// Replay is the record of an earlier run that this one repeats; nil for a first
	// run. Stdin is then that run's whole input.
	Replay *Replayed
}

// Replayed is what an earlier run observed (Ran.Record), possibly nothing.
type Replayed struct{ Record []byte }

// Ran is how a run of a job went.
type Ran struct {
	mesh.Exit
	Input     string `json:"input"`      // digest of the input that the program read, "sha256:…"
	InputSize int64  `json:"input_size"` // bytes
	Record    []byte `json:"record,omitempty"`
	Cut       bool   `json:"cut,omitempty"` // there was more to record than is kept: the run cannot be repeated exactly
}
