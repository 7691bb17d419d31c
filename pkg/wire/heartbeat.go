package wire

import (
	"crypto/sha256"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"

	"peercompute/pkg/mesh"
)

// ProtocolHeartbeat carries one heartbeat and its answer, then the stream ends.
const ProtocolHeartbeat = "/peercompute/heartbeat/1"

// Limits of heartbeats, in bytes and in time.
const (
	MaxHeartbeat = 2 << 10
	MaxPulse     = 6 << 10 // may hold one heartbeat

	// HeartbeatDrift is how far the sender's clock may be off, either way.
	HeartbeatDrift = time.Minute
	maxProgram     = 64
)

const (
	domainHeartbeat = "peercompute/heartbeat"
	typeHeartbeat   = "/peercompute/heartbeat/1"
	typePulse       = "/peercompute/pulse/1"
)

// Head is the end of a hash-chained log: the number of its last entry, from 1,
// and that entry's hash. The zero value is an empty log.
type Head struct {
	Seq  uint64   `cbor:"1,keyasint" json:"seq"`
	Hash [32]byte `cbor:"2,keyasint" json:"hash"`
}

// Capacity is what a machine could still lend now.
type Capacity struct {
	Workloads int   `cbor:"1,keyasint"`
	MilliCPU  int64 `cbor:"2,keyasint"`
	Memory    int64 `cbor:"3,keyasint"`           // bytes
	Disk      int64 `cbor:"4,keyasint"`           // bytes
	Closed    bool  `cbor:"5,keyasint,omitempty"` // no new work is taken now
}

// Heartbeat says that its sender lives, to one other node.
type Heartbeat struct {
	Version     uint        `cbor:"1,keyasint"`
	From        mesh.PeerID `cbor:"2,keyasint"`
	To          mesh.PeerID `cbor:"3,keyasint"`
	Time        int64       `cbor:"4,keyasint"` // Unix ms, sender's clock
	Nonce       Nonce       `cbor:"5,keyasint"`
	Incarnation Incarnation `cbor:"6,keyasint"` // of the sender's state file
	Program     string      `cbor:"7,keyasint"` // the sender's version, for people
	Trust       Head        `cbor:"8,keyasint"` // of the sender's trust log
	Audit       Head        `cbor:"9,keyasint"` // of the sender's audit log
	Free        *Capacity   `cbor:"10,keyasint,omitempty"`
}

// Pulse answers a heartbeat. Being bound to the exact bytes of it, it is also the
// answering node's countersignature of the heads in it.
type Pulse struct {
	Version uint        `cbor:"1,keyasint"`
	From    mesh.PeerID `cbor:"2,keyasint"`
	To      mesh.PeerID `cbor:"3,keyasint"`
	Beat    Digest      `cbor:"4,keyasint"`           // of the heartbeat's envelope
	Time    int64       `cbor:"5,keyasint"`           // Unix ms, answering node's clock
	Error   *Error      `cbor:"6,keyasint,omitempty"` // why it was refused
	Earlier []byte      `cbor:"7,keyasint,omitempty"` // an earlier heartbeat of To's, whose heads To's logs must still contain
	Doubled bool        `cbor:"8,keyasint,omitempty"` // two state files take turns under To's identity
}

// SealHeartbeat signs a heartbeat.
func SealHeartbeat(key crypto.PrivKey, h Heartbeat) ([]byte, error) {
	return seal(key, domainHeartbeat, typeHeartbeat, h)
}

// OpenHeartbeat verifies that data is from's heartbeat to me. Its time and nonce
// are for the caller to judge.
func OpenHeartbeat(data []byte, from, me mesh.PeerID) (*Heartbeat, error) {
	h, signer, err := openHeartbeat(data)
	if err != nil {
		return nil, err
	}
	switch {
	case signer != from || h.From != from:
		return nil, mesh.Errorf(mesh.Forged, "the heartbeat is another's").WithRule("heartbeat.signer")
	case h.To != me:
		return nil, mesh.Errorf(mesh.Misdirected, "the heartbeat is for another node").WithRule("heartbeat.to")
	}
	return h, nil
}

// OpenOwnHeartbeat verifies a heartbeat that somebody gives back to the node that
// once sent it; mine says which signers that node was.
func OpenOwnHeartbeat(data []byte, mine func(mesh.PeerID) bool) (*Heartbeat, error) {
	h, signer, err := openHeartbeat(data)
	if err != nil {
		return nil, err
	}
	if signer != h.From || !mine(signer) {
		return nil, mesh.Errorf(mesh.Forged, "the heartbeat is another's").WithRule("heartbeat.signer")
	}
	return h, nil
}

func openHeartbeat(data []byte) (*Heartbeat, mesh.PeerID, error) {
	payload, rest, signer, err := open(data, MaxHeartbeat, domainHeartbeat, typeHeartbeat)
	if err != nil {
		return nil, "", err
	}
	var h Heartbeat
	if err := Unmarshal(payload, &h, MaxHeartbeat); err != nil || rest != "" || len(h.Program) > maxProgram {
		return nil, "", mesh.Errorf(mesh.Forged, "the heartbeat is malformed").WithRule("wire.payload").Because(err)
	}
	if h.Version != Version {
		return nil, "", mesh.Errorf(mesh.Unsupported, "heartbeat version %d is not spoken here, only %d", h.Version, Version).WithRule("wire.version")
	}
	return &h, signer, nil
}

// NewPulse is the answer to the heartbeat in data, given at that time.
func NewPulse(data []byte, me, to mesh.PeerID, now time.Time) Pulse {
	return Pulse{Version: Version, From: me, To: to, Beat: sha256.Sum256(data), Time: now.UnixMilli()}
}

// SealPulse signs the answer to a heartbeat.
func SealPulse(key crypto.PrivKey, p Pulse) ([]byte, error) {
	return seal(key, domainHeartbeat, typePulse, p)
}

// OpenPulse verifies that data is from's answer to the heartbeat beat of me.
func OpenPulse(data []byte, from, me mesh.PeerID, beat []byte) (*Pulse, error) {
	payload, rest, signer, err := open(data, MaxPulse, domainHeartbeat, typePulse)
	if err != nil {
		return nil, err
	}
	var p Pulse
	if err := Unmarshal(payload, &p, MaxPulse); err != nil || rest != "" || p.Version != Version {
		return nil, mesh.Errorf(mesh.Forged, "the answer to a heartbeat is malformed").WithRule("wire.payload").Because(err)
	}
	if signer != from || p.From != from || p.To != me || p.Beat != sha256.Sum256(beat) {
		return nil, mesh.Errorf(mesh.Forged, "the answer is not to our heartbeat").WithRule("heartbeat.answer")
	}
	return &p, nil
}
