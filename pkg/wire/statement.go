package wire

import (
	"github.com/libp2p/go-libp2p/core/crypto"

	"peercompute/pkg/mesh"
)

// A statement is what a peer states, signed with its node key, of how long the
// containers of one asker were up there. Containers have no end of their own as jobs
// have, so each statement is about all time, and the latest says everything.

const (
	domainStatement = "peercompute/statement"
	typeStatement   = "/peercompute/statement/1"

	// MaxStatement bounds one statement envelope, in bytes.
	MaxStatement = 1 << 10
)

// Statement is the signed payload.
type Statement struct {
	Version          uint        `cbor:"1,keyasint"`
	Runner           mesh.PeerID `cbor:"2,keyasint"` // whose machine it is, and who signs
	Asker            mesh.PeerID `cbor:"3,keyasint"` // whose containers
	Time             int64       `cbor:"4,keyasint"` // Unix ms, runner's clock
	ContainerSeconds uint64      `cbor:"5,keyasint"` // since the two met; of a workload with two runs at once, one counts
}

// GetStatement is empty: ask for the statement about the asker's containers.
type GetStatement struct{}

// StatementReply is a statement's envelope.
type StatementReply struct {
	Statement []byte `cbor:"1,keyasint"`
}

// SealStatement signs a statement with the runner's key.
func SealStatement(key crypto.PrivKey, s Statement) ([]byte, error) {
	return seal(key, domainStatement, typeStatement, s)
}

// OpenStatement verifies a statement: its form, and that the peer that it names as
// the runner signed it. Whether that peer tells the truth is another question.
func OpenStatement(data []byte) (*Statement, error) {
	payload, rest, signer, err := open(data, MaxStatement, domainStatement, typeStatement)
	if err != nil {
		return nil, err
	}
	var s Statement
	if err := Unmarshal(payload, &s, MaxStatement); err != nil || rest != "" {
		return nil, mesh.Errorf(mesh.Forged, "the statement is malformed").WithRule("wire.payload").Because(err)
	}
	if s.Version != Version {
		return nil, mesh.Errorf(mesh.Unsupported, "statement version %d is not known here", s.Version).WithRule("wire.version")
	}
	if signer != s.Runner {
		return nil, mesh.Errorf(mesh.Forged, "the statement is signed by another peer than the one that it names").WithRule("wire.signer")
	}
	return &s, nil
}
