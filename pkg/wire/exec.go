package wire

import "peercompute/pkg/mesh"

// Exec asks to run a program inside a workload. Frames follow the answer: FrameStdin
// (empty = its end) and FrameResize up, FrameCredit for what was taken of the input,
// FrameStdout and FrameStderr down; FrameExit or FrameError is the last.
type Exec struct {
	Workload mesh.WorkloadID `cbor:"1,keyasint"`
	Argv     []string        `cbor:"2,keyasint"`
	TTY      bool            `cbor:"3,keyasint,omitempty"`
	Stdin    bool            `cbor:"4,keyasint,omitempty"` // it gets input
}
