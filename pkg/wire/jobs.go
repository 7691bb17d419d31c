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
