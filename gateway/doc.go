// Package gateway is the public side of the mesh: it takes HTTP requests for
// published names and carries each over a stream to the peer that serves the
// name. It reads HTTP once, holds no more of a body than a few buffers, and
// never runs a workload: upstream of it there is only ever a tunnel.
package gateway
