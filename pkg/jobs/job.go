// Package jobs is the queue of work that runs without anybody waiting for it. A job
// that was taken is on disk, runs to its end once it is its turn, and has one result
// that is recorded. peerd may die at any line: what was queued still is, and what
// was running runs again from its beginning. That is safe because a job has no
// effect but its result, and at most one of its runs is recorded.
//
// The queue is bounded, and fair: peers take turns, no peer holds more than half of
// the slots, and the first job of a peer never waits for another peer's.
//
// It judges nobody and knows no runtime: its user admits and executes.
package jobs

import (
	"strings"
	"time"

	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
)

// State is where a job is in its life.
type State string

// The states. Done is final, whatever came of the job.
const (
	Queued  State = "queued"
	Running State = "running"
	Done    State = "done"
)

// Job is a job as it is kept.
type Job struct {
	ID        mesh.WorkloadID `json:"id"`
	Owner     mesh.PeerID     `json:"owner"`
	Request   string          `json:"request"`       // digest of the request that submitted it
	Key       string          `json:"key,omitempty"` // the owner's: a second job with the same one is the first
	Spec      mesh.Spec       `json:"spec"`          // defaults filled in
	Seed      driver.Seed     `json:"seed"`
	Input     string          `json:"input,omitempty"` // digest; empty = no input
	InputSize int64           `json:"input_size,omitempty"`

	State     State     `json:"state"`
	Submitted time.Time `json:"submitted"`
	Started   time.Time `json:"started,omitzero"` // the run that counts
	Ended     time.Time `json:"ended,omitzero"`
	Attempts  int       `json:"attempts,omitempty"` // runs begun; more than one after a crash
	Canceled  bool      `json:"canceled,omitempty"` // asked to end

	Exit    mesh.Exit `json:"exit,omitzero"`     // of one that is done
	Receipt []byte    `json:"receipt,omitempty"` // envelope; none if it never ran to an end
	Output  Stored    `json:"output,omitzero"`
	Log     Stored    `json:"log,omitzero"`
	Record  Stored    `json:"record,omitzero"`
	Dropped bool      `json:"dropped,omitempty"` // its outputs went, to make room for newer ones
}

// Stored says where an output is.
type Stored struct {
	Size int64 `json:"size"`
	File bool  `json:"file,omitempty"` // in a file of its own; else in the state file
}

// bytes is what a job's outputs take.
func (j Job) bytes() int64 { return j.Output.Size + j.Log.Size + j.Record.Size }

// The bounds of the queue.
const (
	MaxQueued      = 1000     // jobs that wait, of one owner
	MaxQueuedAll   = 5000     // of all owners
	MaxRecords     = 1000     // finished jobs of one owner that are remembered
	MaxResults     = 200      // of these, how many keep their outputs
	MaxResultBytes = 64 << 20 // bytes of the outputs of one owner's jobs
	MaxOutput      = 16 << 20 // bytes that one job may write to its standard output
	MaxLog         = 4 << 20  // and to its standard error
	MaxKey         = 128      // bytes of a key
	maxAttempts    = 5        // runs that a crash cut short before a job is given up
)

// Limits are those that can be set smaller, for tests.
type Limits struct {
	Queued, QueuedAll, Records, Results int
	ResultBytes, Output, Log            int64
}

func (l Limits) withDefaults() Limits {
	or(&l.Queued, MaxQueued)
	or(&l.QueuedAll, MaxQueuedAll)
	or(&l.Records, MaxRecords)
	or(&l.Results, MaxResults)
	or(&l.ResultBytes, MaxResultBytes)
	or(&l.Output, MaxOutput)
	or(&l.Log, MaxLog)
	return l
}

func or[T int | int64](p *T, v T) {
	if *p == 0 {
		*p = v
	}
}

// Validate judges the form of a job that is to be submitted.
func (j Job) Validate() error {
	if len(j.Key) > MaxKey || strings.ContainsFunc(j.Key, func(r rune) bool { return r < ' ' || r > '~' }) {
		return mesh.Errorf(mesh.Invalid, "a job's key is at most %d printable characters", MaxKey)
	}
	if (j.Input == "") != (j.InputSize == 0) || j.InputSize < 0 || j.Input != "" && !mesh.ValidDigest(j.Input) {
		return mesh.Errorf(mesh.Invalid, "a job's input is a digest and a size, or nothing")
	}
	if j.Spec.Runtime != mesh.Wasm || j.Spec.Shape != mesh.Job {
		return mesh.Errorf(mesh.Unsupported, "only WASM jobs can be queued")
	}
	return j.Spec.Validate()
}
