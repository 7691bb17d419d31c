// Package mesh is the vocabulary of Peer Compute: the values that every other
// package speaks in. It does no I/O and holds no state.
package mesh

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
)

// PeerID identifies a node: the multihash of its public key. Its text form is
// the one libp2p prints ("12D3KooW…").
type PeerID = peer.ID

// ParsePeerID reads the text form of a peer ID.
func ParsePeerID(s string) (PeerID, error) {
	id, err := peer.Decode(s)
	if err != nil {
		return "", Errorf(Invalid, "%q is not a peer ID", s).WithHint("a peer ID looks like 12D3KooW…; print one with: peerctl whoami")
	}
	return id, nil
}

var lowerBase32 = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// WorkloadID identifies one workload for ever. It is 16 characters of lower-case
// base32 (80 bits), derived from the digest of the request that created it, so
// a repeated request names the same workload.
type WorkloadID string

const workloadIDLen = 16

// NewWorkloadID derives the ID of the workload that the request with this
// SHA-256 digest creates.
func NewWorkloadID(requestDigest [32]byte) WorkloadID {
	h := sha256.New()
	h.Write([]byte("peercompute/workload/1\x00"))
	h.Write(requestDigest[:])
	return WorkloadID(lowerBase32.EncodeToString(h.Sum(nil)[:10]))
}

// ParseWorkloadID reads a full workload ID.
func ParseWorkloadID(s string) (WorkloadID, error) {
	if len(s) != workloadIDLen || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz234567") != "" {
		return "", Errorf(Invalid, "%q is not a workload ID", s).WithHint("list workloads with: peerctl ps")
	}
	return WorkloadID(s), nil
}

// Label is the public DNS label of a workload: its name and a hash that binds
// the label to the peer that serves it, so nobody else can ever claim it.
func Label(name string, publisher PeerID, id WorkloadID) string {
	h := sha256.New()
	fmt.Fprintf(h, "peercompute/label/1\x00%d\x00%s%s", len(publisher), string(publisher), id)
	suffix := lowerBase32.EncodeToString(h.Sum(nil))[:10]
	if name == "" {
		return suffix
	}
	return name + "-" + suffix
}
