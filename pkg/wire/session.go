package wire

import (
	"time"

	"peercompute/pkg/mesh"
)

// The bodies of requests for a stream into a running workload. Field numbers are
// append-only.

// Forward asks for one connection to a port of a workload. Once the answer has come
// its bytes follow, both ways and without frames; a reset means that it was cut.
type Forward struct {
	Workload mesh.WorkloadID `cbor:"1,keyasint"`
	Port     uint16          `cbor:"2,keyasint,omitempty"` // 0 = the workload's own
}

// Stats asks what workloads of the asker's use. With Every the answer is the first
// sample, and FrameStats frames follow until the asker hangs up.
type Stats struct {
	Workloads []mesh.WorkloadID `cbor:"1,keyasint,omitempty"` // at most MaxStats; empty = all of the asker's that run
	Every     int64             `cbor:"2,keyasint,omitempty"` // ns between samples, at least MinStatsEvery; 0 = one sample
}

// Bounds of a Stats request.
const (
	MaxStats      = 64
	MinStatsEvery = time.Second
)

// StatsReply is one sample. What does not run is left out.
type StatsReply struct {
	Time      int64           `cbor:"1,keyasint"` // Unix ns of the peer's clock
	Workloads []WorkloadStats `cbor:"2,keyasint"`
}

// WorkloadStats is what one workload uses, and may use.
type WorkloadStats struct {
	Workload mesh.WorkloadID `cbor:"1,keyasint"`
	Name     string          `cbor:"2,keyasint"`
	Runtime  mesh.Runtime    `cbor:"3,keyasint"`
	Limits   mesh.Resources  `cbor:"4,keyasint"`
	Stats    mesh.Stats      `cbor:"5,keyasint"`
}
