package wire

import "peercompute/pkg/mesh"

// The bodies of requests for a stream into a running workload. Field numbers are
// append-only.

// Forward asks for one connection to a port of a workload. Once the answer has come
// its bytes follow, both ways and without frames; a reset means that it was cut.
type Forward struct {
	Workload mesh.WorkloadID `cbor:"1,keyasint"`
	Port     uint16          `cbor:"2,keyasint,omitempty"` // 0 = the workload's own
}
