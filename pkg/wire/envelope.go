package wire

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"strings"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/crypto/pb"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"

	"peercompute/pkg/mesh"
)

// The domains separate our signatures from any other use of the same key.
const (
	domainRequest  = "peercompute/request"
	domainResponse = "peercompute/response"
	domainHello    = "peercompute/hello"
)

// sealed adapts bytes that are encoded already to libp2p's envelope (RFC 0002).
type sealed struct {
	domain string
	typ    string
	bytes  []byte
}

func (s *sealed) Domain() string                 { return s.domain }
func (s *sealed) Codec() []byte                  { return []byte(s.typ) }
func (s *sealed) MarshalRecord() ([]byte, error) { return s.bytes, nil }
func (s *sealed) UnmarshalRecord(b []byte) error { s.bytes = b; return nil }

func seal(key crypto.PrivKey, domain, typ string, payload any) ([]byte, error) {
	b, err := Marshal(payload)
	if err != nil {
		return nil, err
	}
	e, err := record.Seal(&sealed{domain, typ, b}, key)
	if err != nil {
		return nil, err
	}
	return e.Marshal()
}

// open checks size, encoding, key type and signature, and returns the payload's
// bytes as they were signed. Every failure is mesh.Forged.
func open(data []byte, limit int, domain, typePrefix string) (payload []byte, typ string, signer mesh.PeerID, err error) {
	forged := func(msg string, cause error) error {
		return mesh.Errorf(mesh.Forged, "%s", msg).WithRule("wire.envelope").Because(cause)
	}
	if len(data) > limit {
		return nil, "", "", mesh.Errorf(mesh.TooLarge, "message of %d bytes is over the limit of %d", len(data), limit).WithRule("wire.size")
	}
	rec := &sealed{domain: domain}
	env, err := record.ConsumeTypedEnvelope(data, rec)
	if errors.Is(err, record.ErrInvalidSignature) {
		return nil, "", "", forged("the signature does not hold", err)
	}
	if err != nil {
		return nil, "", "", forged("not a signed message", err)
	}
	if env.PublicKey.Type() != pb.KeyType_Ed25519 {
		return nil, "", "", forged("signed with a key that is not Ed25519", nil)
	}
	// Only one encoding of an envelope exists for us; protobuf would allow many.
	if again, err := env.Marshal(); err != nil || !bytes.Equal(again, data) {
		return nil, "", "", forged("the message is not encoded canonically", err)
	}
	typ, ok := strings.CutPrefix(string(env.PayloadType), typePrefix)
	if !ok {
		return nil, "", "", forged("signed as another type of message", nil)
	}
	signer, err = peer.IDFromPublicKey(env.PublicKey)
	if err != nil {
		return nil, "", "", forged("the signer's key is malformed", err)
	}
	return rec.bytes, typ, signer, nil
}

const (
	typeRequest  = "/peercompute/request/1/"
	typeResponse = "/peercompute/response/1/"
	typeHello    = "/peercompute/hello/1"
)

// SealRequest signs a request. The result is what travels, byte for byte.
func SealRequest(key crypto.PrivKey, r Request) ([]byte, error) {
	return seal(key, domainRequest, typeRequest+r.Verb.String(), r)
}

// Opened is a request whose form and signature hold. Nothing else about it has
// been judged.
type Opened struct {
	Request
	Signer mesh.PeerID
	Digest Digest // of the envelope's bytes
}

// OpenRequest verifies an envelope and decodes the request in it.
func OpenRequest(data []byte) (*Opened, error) {
	payload, typ, signer, err := open(data, MaxRequest, domainRequest, typeRequest)
	if err != nil {
		return nil, err
	}
	o := &Opened{Signer: signer, Digest: sha256.Sum256(data)}
	if err := Unmarshal(payload, &o.Request, MaxRequest); err != nil {
		return nil, mesh.Errorf(mesh.Forged, "the request is malformed").WithRule("wire.payload").Because(err)
	}
	if typ != o.Verb.String() {
		return nil, mesh.Errorf(mesh.Forged, "signed as a %s request", typ).WithRule("wire.type")
	}
	if o.Version != Version {
		return nil, mesh.Errorf(mesh.Unsupported, "request version %d is not spoken here, only %d", o.Version, Version).WithRule("wire.version")
	}
	return o, nil
}

// DecodeBody decodes a request's or response's body strictly.
func DecodeBody(body []byte, v any) error {
	if err := Unmarshal(body, v, MaxResponse); err != nil {
		return mesh.Errorf(mesh.Forged, "the message's body is malformed").WithRule("wire.body").Because(err)
	}
	return nil
}

// SealResponse signs an answer.
func SealResponse(key crypto.PrivKey, r Response) ([]byte, error) {
	return seal(key, domainResponse, typeResponse+r.Verb.String(), r)
}

// OpenResponse verifies that data is from's answer to the request with the given
// digest, addressed to me.
func OpenResponse(data []byte, from, me mesh.PeerID, verb Verb, request Digest) (*Response, error) {
	payload, typ, signer, err := open(data, MaxResponse, domainResponse, typeResponse)
	if err != nil {
		return nil, err
	}
	var r Response
	if err := Unmarshal(payload, &r, MaxResponse); err != nil {
		return nil, mesh.Errorf(mesh.Forged, "the answer is malformed").WithRule("wire.payload").Because(err)
	}
	// What could not even be read as a request is answered under verb 0.
	if unread := Verb(0); r.Verb == unread && r.Error != nil && typ == unread.String() {
		verb = unread
	}
	switch {
	case signer != from || r.From != from:
		return nil, mesh.Errorf(mesh.Forged, "the answer is signed by another peer").WithRule("wire.signer")
	case r.To != me:
		return nil, mesh.Errorf(mesh.Misdirected, "the answer is for another peer").WithRule("wire.to")
	case r.Request != request || r.Verb != verb || typ != verb.String():
		return nil, mesh.Errorf(mesh.Forged, "the answer belongs to another request").WithRule("wire.request")
	case r.Version != Version:
		return nil, mesh.Errorf(mesh.Unsupported, "answer version %d is not spoken here", r.Version).WithRule("wire.version")
	}
	return &r, nil
}

// Hello is what a peer needs to know before it can address a request: the
// incarnation, the clock, and a challenge in case the clocks disagree.
type Hello struct {
	Version     uint        `cbor:"1,keyasint"`
	From        mesh.PeerID `cbor:"2,keyasint"`
	To          mesh.PeerID `cbor:"3,keyasint"`
	Nonce       Nonce       `cbor:"4,keyasint"` // the asker's
	Incarnation Incarnation `cbor:"5,keyasint"`
	Time        int64       `cbor:"6,keyasint"` // Unix ms
	Challenge   []byte      `cbor:"7,keyasint"`
}

// SealHello signs a hello.
func SealHello(key crypto.PrivKey, h Hello) ([]byte, error) {
	return seal(key, domainHello, typeHello, h)
}

// OpenHello verifies from's hello to me, in answer to nonce.
func OpenHello(data []byte, from, me mesh.PeerID, nonce Nonce) (*Hello, error) {
	payload, rest, signer, err := open(data, MaxHello, domainHello, typeHello)
	if err != nil {
		return nil, err
	}
	var h Hello
	if err := Unmarshal(payload, &h, MaxHello); err != nil || rest != "" {
		return nil, mesh.Errorf(mesh.Forged, "the hello is malformed").WithRule("wire.payload").Because(err)
	}
	if signer != from || h.From != from || h.To != me || h.Nonce != nonce || h.Version != Version {
		return nil, mesh.Errorf(mesh.Forged, "the hello is not the answer to ours").WithRule("wire.hello")
	}
	return &h, nil
}
