package wire

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/libp2p/go-libp2p/core/crypto"

	"peercompute/pkg/mesh"
)

// A receipt is what the peer that ran a job states about the run, signed with its
// node key. It names everything that decides the run and everything that came of
// it, so that whoever runs the same again can tell whether it is true.

const (
	domainReceipt = "peercompute/receipt"
	typeReceipt   = "/peercompute/receipt/1"

	// MaxReceipt bounds one receipt envelope, in bytes.
	MaxReceipt = 16 << 10

	maxCapabilities = 64
)

// Receipt is the signed payload. Digests are SHA-256.
type Receipt struct {
	Version    uint            `cbor:"1,keyasint"`
	Runner     mesh.PeerID     `cbor:"2,keyasint"` // who ran it and signs
	Asker      mesh.PeerID     `cbor:"3,keyasint"` // who signed the request
	Request    Digest          `cbor:"4,keyasint"` // of the request's envelope
	Job        mesh.WorkloadID `cbor:"5,keyasint"` // follows from Request
	Module     Digest          `cbor:"6,keyasint"`
	Spec       Digest          `cbor:"7,keyasint"` // of the spec's encoding, defaults filled in: arguments, environment, limits
	Seed       Digest          `cbor:"8,keyasint"` // what its random bytes follow from
	Input      Digest          `cbor:"9,keyasint"` // of what the program read
	InputSize  uint64          `cbor:"10,keyasint"`
	Whole      bool            `cbor:"11,keyasint,omitempty"` // every read was full: the input was there before the run
	Output     Digest          `cbor:"12,keyasint"`           // of its standard output
	OutputSize uint64          `cbor:"13,keyasint"`
	Log        Digest          `cbor:"14,keyasint"` // of its standard error
	LogSize    uint64          `cbor:"15,keyasint"`
	Record     Digest          `cbor:"16,keyasint"` // of what it observed
	RecordSize uint64          `cbor:"17,keyasint"`
	Cut        bool            `cbor:"18,keyasint,omitempty"` // it observed more than was recorded: it cannot be repeated exactly
	Repeat     bool            `cbor:"19,keyasint,omitempty"` // it was given the record of an earlier run
	Code       int             `cbor:"20,keyasint"`
	Kind       mesh.Kind       `cbor:"21,keyasint,omitempty"` // why it was ended from outside; 0 = it ended itself
	Reason     string          `cbor:"22,keyasint,omitempty"`
	Fuel       uint64          `cbor:"23,keyasint"`
	Schedule   string          `cbor:"24,keyasint"` // of fuel: "fuel/1"
	PeakMemory uint64          `cbor:"25,keyasint"` // bytes
	Caps       []string        `cbor:"26,keyasint,omitempty"`
	Started    int64           `cbor:"27,keyasint"` // Unix ms, runner's clock
	Ended      int64           `cbor:"28,keyasint"`
}

// SealReceipt signs a receipt with the runner's key.
func SealReceipt(key crypto.PrivKey, r Receipt) ([]byte, error) {
	return seal(key, domainReceipt, typeReceipt, r)
}

// OpenReceipt verifies a receipt: its form, and that the peer that it names as the
// runner signed it. Whether that peer tells the truth is another question. Every
// failure is mesh.Forged.
func OpenReceipt(data []byte) (*Receipt, error) {
	payload, rest, signer, err := open(data, MaxReceipt, domainReceipt, typeReceipt)
	if err != nil {
		return nil, err
	}
	var r Receipt
	if err := Unmarshal(payload, &r, MaxReceipt); err != nil || rest != "" {
		return nil, mesh.Errorf(mesh.Forged, "the receipt is malformed").WithRule("wire.payload").Because(err)
	}
	switch {
	case r.Version != Version:
		return nil, mesh.Errorf(mesh.Unsupported, "receipt version %d is not known here", r.Version).WithRule("wire.version")
	case signer != r.Runner:
		return nil, mesh.Errorf(mesh.Forged, "the receipt is signed by another peer than the one that it names").WithRule("wire.signer")
	case r.Job != mesh.NewWorkloadID(r.Request):
		return nil, mesh.Errorf(mesh.Forged, "the receipt's job does not belong to its request").WithRule("wire.receipt")
	case len(r.Caps) > maxCapabilities || len(r.Reason) > maxErrorText || r.Ended < r.Started:
		return nil, mesh.Errorf(mesh.Forged, "the receipt is malformed").WithRule("wire.receipt")
	}
	return &r, nil
}

// SpecDigest is the digest of a spec as receipts name it; its defaults must be
// filled in.
func SpecDigest(s mesh.Spec) (Digest, error) {
	b, err := Marshal(s)
	if err != nil {
		return Digest{}, fmt.Errorf("cannot encode a spec: %w", err)
	}
	return sha256.Sum256(b), nil
}

// String is the text form of a digest, "sha256:…".
func (d Digest) String() string { return "sha256:" + hex.EncodeToString(d[:]) }

// MarshalText writes the text form, for JSON; on the wire a digest is 32 bytes.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads it.
func (d *Digest) UnmarshalText(b []byte) (err error) {
	*d, err = ParseDigest(string(b))
	return err
}

// ParseDigest reads the text form of a digest.
func ParseDigest(s string) (d Digest, err error) {
	if !mesh.ValidDigest(s) {
		return d, mesh.Errorf(mesh.Invalid, "%q is not sha256: and 64 hex digits", s)
	}
	_, err = hex.Decode(d[:], []byte(s[len("sha256:"):]))
	return d, err
}
