package docker

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"peercompute/pkg/mesh"
)

// The labels of our containers. Adopt finds a node's containers by them.
const (
	labelNode     = "peercompute.node"
	labelWorkload = "peercompute.workload"
	labelOwner    = "peercompute.owner"
	labelName     = "peercompute.name" // for people who read docker ps
	labelPort     = "peercompute.port"
)

// containerName is the one name that the container of a workload can have, so
// that the engine itself refuses to run a workload twice. Two nodes may share an
// engine, hence the end of the node's ID.
func containerName(node mesh.PeerID, id mesh.WorkloadID) string {
	n := node.String()
	return "peercompute-" + string(id) + "-" + n[max(0, len(n)-8):]
}

// userOf is the numeric user and group of a workload. Each has its own, because
// the kernel counts inotify watches, pipe buffers, pending signals and descriptors
// in flight per user: one workload must not use up another's. The range is one
// that systemd's map of user IDs leaves to nobody. An engine that maps users has
// only 65536 of them, mapped apart from the host's, so there it is a constant.
func userOf(id mesh.WorkloadID, remaps bool) string {
	if remaps {
		return "65532"
	}
	sum := sha256.Sum256([]byte("peercompute/user/1\x00" + string(id)))
	return strconv.FormatUint(uint64(0x70000000+binary.BigEndian.Uint32(sum[:])&0x07ffffff), 10)
}

// bytesText prints a number of bytes for people.
func bytesText(n int64) string {
	for _, u := range []struct {
		size int64
		name string
	}{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n >= u.size {
			return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(n)/float64(u.size)), ".0") + " " + u.name
		}
	}
	return fmt.Sprintf("%d B", n)
}
