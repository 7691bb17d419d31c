package wire

import "peercompute/pkg/mesh"

// The bodies of requests about jobs. Field numbers are append-only.

// MaxInput bounds the stored input of one job, in bytes.
const MaxInput = 16 << 20

// Run asks to run a job while the asker waits.
type Run struct {
	Spec   mesh.Spec `cbor:"1,keyasint"`
	Seed   []byte    `cbor:"2,keyasint,omitempty"` // 32 bytes; drawn by the runner if empty
	Whole  bool      `cbor:"3,keyasint,omitempty"` // all of the input is there already: the program's reads are full
	Repeat bool      `cbor:"4,keyasint,omitempty"` // FrameRecord frames come before the input, the last one empty
}

// PutInput announces the input of a job that is to be queued: digest ("sha256:…") and
// size in bytes. Exactly so many follow, unless the peer has it already from this
// same asker.
type PutInput struct {
	Digest string `cbor:"1,keyasint"`
	Size   int64  `cbor:"2,keyasint"`
}

// PutInputReply says whether the bytes must follow.
type PutInputReply struct {
	Have bool `cbor:"1,keyasint"`
}

// Submit queues a job. Its input was put before. The answer is its JobView.
type Submit struct {
	Spec      mesh.Spec `cbor:"1,keyasint"`
	Seed      []byte    `cbor:"2,keyasint"`           // 32 bytes
	Input     string    `cbor:"3,keyasint,omitempty"` // digest; empty = no input
	InputSize int64     `cbor:"4,keyasint,omitempty"`
	Key       string    `cbor:"5,keyasint,omitempty"` // the asker's own name for it: a second one of the same is the first
}

// JobRef names one job (inspect, cancel).
type JobRef struct {
	Job mesh.WorkloadID `cbor:"1,keyasint"`
}

// ListJobs is empty: list all jobs of the asker.
type ListJobs struct{}

// ListJobsReply is the asker's jobs, the newest first, without their receipts.
type ListJobsReply struct {
	Jobs      []JobView `cbor:"1,keyasint"`
	Truncated bool      `cbor:"2,keyasint,omitempty"`
}

// JobView is a job as its owner may see it. Times are Unix ms of the peer's clock.
type JobView struct {
	ID         mesh.WorkloadID `cbor:"1,keyasint"`
	Name       string          `cbor:"2,keyasint"`
	Module     string          `cbor:"3,keyasint"`
	State      string          `cbor:"4,keyasint"` // queued, running or done
	Submitted  int64           `cbor:"5,keyasint"`
	Started    int64           `cbor:"6,keyasint,omitempty"`
	Ended      int64           `cbor:"7,keyasint,omitempty"`
	Ahead      int             `cbor:"8,keyasint,omitempty"` // of the asker's jobs, queued before it
	Attempts   int             `cbor:"9,keyasint,omitempty"`
	Exit       *mesh.Exit      `cbor:"10,keyasint,omitempty"`
	OutputSize int64           `cbor:"11,keyasint,omitempty"` // bytes so far
	LogSize    int64           `cbor:"12,keyasint,omitempty"`
	Dropped    bool            `cbor:"13,keyasint,omitempty"` // the outputs are not kept any more
	Receipt    []byte          `cbor:"14,keyasint,omitempty"` // envelope
	Request    Digest          `cbor:"15,keyasint"`           // that submitted it
}

// JobOutput asks for what a job wrote, as frames: FrameStdout and FrameStderr in any
// order, FrameRecord; then FrameReceipt and FrameExit of a job that is done, or
// FrameEnd of one that is not.
type JobOutput struct {
	Job    mesh.WorkloadID `cbor:"1,keyasint"`
	Follow bool            `cbor:"2,keyasint,omitempty"` // go on until the job is done
	Quiet  bool            `cbor:"3,keyasint,omitempty"` // its end alone
}
