package wire

import (
	"bytes"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"

	"peercompute/pkg/mesh"
)

// ProtocolLineage tells a peer that dials this node by a former ID how the present
// one follows from it: the node writes one message and ends the stream.
const ProtocolLineage = "/peercompute/lineage/1"

// Bounds of rotations, in bytes and in time.
const (
	MaxStep    = 2 << 10  // either signed half of a step
	MaxSteps   = 16       // of a lineage that is told
	MaxLineage = 80 << 10 // a message with all of them
	MaxOverlap = 24 * time.Hour
)

const (
	domainRotation  = "peercompute/rotation"
	typeRotationOld = "/peercompute/rotation/1/old"
	typeRotationNew = "/peercompute/rotation/1/new"
)

// Rotation says that one key takes the place of another.
type Rotation struct {
	Version     uint        `cbor:"1,keyasint"`
	Old         mesh.PeerID `cbor:"2,keyasint"`
	New         mesh.PeerID `cbor:"3,keyasint"`
	Seq         uint64      `cbor:"4,keyasint"`           // 1 for the first of an identity, then one more each time
	Time        int64       `cbor:"5,keyasint"`           // Unix ms
	Overlap     int64       `cbor:"6,keyasint"`           // ms from Time in which both keys count
	Compromised bool        `cbor:"7,keyasint,omitempty"` // the old key may be in other hands
}

// Step is a rotation signed by both keys: the old one names its successor, and the
// new one agrees to be it. Both sign the same bytes, each in a role of its own.
type Step struct {
	ByOld []byte `cbor:"1,keyasint"`
	ByNew []byte `cbor:"2,keyasint"`
}

// Lineage is a chain of steps, the oldest first: each begins with the key that the
// one before ended with. It is the body of a rotate request.
type Lineage struct {
	Steps []Step `cbor:"1,keyasint"`
}

// SealRotation signs a rotation with both keys.
func SealRotation(oldKey, newKey crypto.PrivKey, r Rotation) (s Step, err error) {
	if s.ByOld, err = seal(oldKey, domainRotation, typeRotationOld, r); err != nil {
		return Step{}, err
	}
	s.ByNew, err = seal(newKey, domainRotation, typeRotationNew, r)
	return s, err
}

// Open verifies both signatures of a step. Whether the keys are good ones, and the
// rotation the first of its key, is for the caller to judge.
func (s Step) Open() (*Rotation, error) {
	half := func(data []byte, typ string) ([]byte, mesh.PeerID, error) {
		payload, rest, signer, err := open(data, MaxStep, domainRotation, typ)
		if err == nil && rest != "" {
			err = mesh.Errorf(mesh.Forged, "signed as another type of message").WithRule("wire.type")
		}
		return payload, signer, err
	}
	payload, oldSigner, err := half(s.ByOld, typeRotationOld)
	if err != nil {
		return nil, err
	}
	agreed, newSigner, err := half(s.ByNew, typeRotationNew)
	if err != nil {
		return nil, err
	}
	bad := func(rule, why string) (*Rotation, error) {
		return nil, mesh.Errorf(mesh.Forged, "the rotation is not valid: %s", why).WithRule(rule)
	}
	var r Rotation
	if err := Unmarshal(payload, &r, MaxStep); err != nil {
		return nil, mesh.Errorf(mesh.Forged, "the rotation is malformed").WithRule("wire.payload").Because(err)
	}
	switch {
	case !bytes.Equal(payload, agreed):
		return bad("rotation.halves", "the two keys sign different things")
	case r.Version != Version:
		return nil, mesh.Errorf(mesh.Unsupported, "rotation version %d is not spoken here, only %d", r.Version, Version).WithRule("wire.version")
	case oldSigner != r.Old:
		return bad("rotation.old", "it is not signed by the key that is replaced")
	case newSigner != r.New:
		return bad("rotation.new", "it is not signed by the key that takes its place")
	case r.Old == r.New:
		return bad("rotation.new", "a key cannot replace itself")
	case r.Seq == 0:
		return bad("rotation.seq", "it has no number")
	case r.Overlap < 0 || r.Overlap > MaxOverlap.Milliseconds() || r.Compromised && r.Overlap != 0:
		return bad("rotation.overlap", "both keys would count for too long")
	}
	return &r, nil
}

// Open verifies every step, and that they follow each other.
func (l Lineage) Open() ([]Rotation, error) {
	if len(l.Steps) == 0 || len(l.Steps) > MaxSteps {
		return nil, mesh.Errorf(mesh.Invalid, "a lineage of %d steps; from 1 to %d are taken", len(l.Steps), MaxSteps).WithRule("rotation.steps")
	}
	var out []Rotation
	for i, s := range l.Steps {
		r, err := s.Open()
		if err != nil {
			return nil, err
		}
		if i > 0 && (r.Old != out[i-1].New || r.Seq != out[i-1].Seq+1) {
			return nil, mesh.Errorf(mesh.Forged, "the rotations do not follow each other").WithRule("rotation.chain")
		}
		out = append(out, *r)
	}
	return out, nil
}
