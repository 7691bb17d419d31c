package wire

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/libp2p/go-libp2p/core/crypto"

	"peercompute/pkg/mesh"
)

// ProtocolJoin is the only protocol of ours that a peer reaches that is not on the
// trust list, and only while an invite is open.
const ProtocolJoin = "/peercompute/join/1"

// MaxToken bounds an invite's text, and MaxJoin a join message, in bytes.
const (
	MaxToken = 4 << 10
	MaxJoin  = 8 << 10
)

const (
	tokenPrefix = "peerjoin1-"
	domainJoin  = "peercompute/join"
	typeJoin    = "/peercompute/join/1"
	typeJoined  = "/peercompute/joined/1"
)

// Secret is an invite's one-time secret. It is shown once, in the token.
type Secret [16]byte

// Invite is what a token carries: where to knock, and how to prove that one was
// asked to.
type Invite struct {
	Version uint        `cbor:"1,keyasint"`
	Peer    mesh.PeerID `cbor:"2,keyasint"`
	Addrs   []string    `cbor:"3,keyasint"` // multiaddrs without /p2p
	Secret  Secret      `cbor:"4,keyasint"`
	Expires int64       `cbor:"5,keyasint"`           // Unix ms, the inviter's clock
	Allow   []string    `cbor:"6,keyasint,omitempty"` // what joining allows there; for people, the inviter's record decides
	Name    string      `cbor:"7,keyasint,omitempty"` // what the inviter calls itself
}

// Token is the invite as one word.
func (i Invite) Token() (string, error) {
	b, err := Marshal(i)
	if err != nil {
		return "", err
	}
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(b), nil
}

// ParseToken reads a token. White space around it is no matter.
func ParseToken(s string) (Invite, error) {
	bad := func(err error) (Invite, error) {
		return Invite{}, mesh.Errorf(mesh.Invalid, "that is not a whole invite").
			WithHint("copy all of it; it begins with %s and is made by: peerctl peers invite", tokenPrefix).Because(err)
	}
	s, ok := strings.CutPrefix(strings.TrimSpace(s), tokenPrefix)
	if !ok || len(s) > MaxToken {
		return bad(nil)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil {
		return bad(err)
	}
	var i Invite
	if err := Unmarshal(b, &i, MaxToken); err != nil {
		return bad(err)
	}
	if i.Version != Version {
		return Invite{}, mesh.Errorf(mesh.Unsupported, "the invite is of version %d, this program knows %d", i.Version, Version)
	}
	return i, nil
}

// Proof shows knowledge of a secret, bound to both keys, a nonce and a direction.
type Proof [sha256.Size]byte

func prove(s Secret, what string, from, to mesh.PeerID, n Nonce) (p Proof) {
	h := hmac.New(sha256.New, s[:])
	fmt.Fprintf(h, "peercompute/%s/1\x00%d\x00%s%d\x00%s", what, len(from), string(from), len(to), string(to))
	h.Write(n[:])
	copy(p[:], h.Sum(nil))
	return p
}

// Join asks to be trusted. It is signed by the one who asks.
type Join struct {
	Version uint        `cbor:"1,keyasint"`
	From    mesh.PeerID `cbor:"2,keyasint"`
	To      mesh.PeerID `cbor:"3,keyasint"`
	Nonce   Nonce       `cbor:"4,keyasint"`
	Proof   Proof       `cbor:"5,keyasint"`
	Name    string      `cbor:"6,keyasint"` // what it would like to be called
	Addrs   []string    `cbor:"7,keyasint"` // where it can be dialled
}

// Joined is the answer: trusted from now on, or why not.
type Joined struct {
	Version uint        `cbor:"1,keyasint"`
	From    mesh.PeerID `cbor:"2,keyasint"`
	To      mesh.PeerID `cbor:"3,keyasint"`
	Nonce   Nonce       `cbor:"4,keyasint"`           // of the Join
	Proof   Proof       `cbor:"5,keyasint,omitempty"` // that the inviter knows the secret too
	Error   *Error      `cbor:"6,keyasint,omitempty"`
}

// NewJoin makes a join message under an invite.
func NewJoin(i Invite, me mesh.PeerID, name string, addrs []string) Join {
	n := NewNonce()
	return Join{Version: Version, From: me, To: i.Peer, Nonce: n, Proof: prove(i.Secret, "join", me, i.Peer, n), Name: name, Addrs: addrs}
}

// Knows reports whether the sender knew this secret.
func (j Join) Knows(s Secret) bool {
	want := prove(s, "join", j.From, j.To, j.Nonce)
	return hmac.Equal(want[:], j.Proof[:])
}

// Accept is the answer to a join under this secret.
func (j Join) Accept(s Secret) Joined {
	return Joined{Version: Version, From: j.To, To: j.From, Nonce: j.Nonce, Proof: prove(s, "joined", j.To, j.From, j.Nonce)}
}

// Refuse is the answer that says why not.
func (j Join) Refuse(err error) Joined {
	return Joined{Version: Version, From: j.To, To: j.From, Nonce: j.Nonce, Error: NewError(err)}
}

// SealJoin signs a join message, SealJoined its answer.
func SealJoin(key crypto.PrivKey, j Join) ([]byte, error) { return seal(key, domainJoin, typeJoin, j) }

// SealJoined signs the answer to a join.
func SealJoined(key crypto.PrivKey, j Joined) ([]byte, error) {
	return seal(key, domainJoin, typeJoined, j)
}

// OpenJoin verifies that data is from's own join message to me.
func OpenJoin(data []byte, from, me mesh.PeerID) (*Join, error) {
	payload, rest, signer, err := open(data, MaxJoin, domainJoin, typeJoin)
	if err != nil {
		return nil, err
	}
	var j Join
	if err := Unmarshal(payload, &j, MaxJoin); err != nil || rest != "" || j.Version != Version {
		return nil, mesh.Errorf(mesh.Forged, "the join message is malformed").WithRule("wire.payload").Because(err)
	}
	if signer != from || j.From != from || j.To != me {
		return nil, mesh.Errorf(mesh.Forged, "the join message is another's").WithRule("wire.signer")
	}
	return &j, nil
}

// OpenJoined verifies the answer to j, including that it comes from one who knew
// the invite's secret.
func OpenJoined(data []byte, j Join, s Secret) error {
	payload, rest, signer, err := open(data, MaxJoin, domainJoin, typeJoined)
	if err != nil {
		return err
	}
	var a Joined
	if err := Unmarshal(payload, &a, MaxJoin); err != nil || rest != "" {
		return mesh.Errorf(mesh.Forged, "the answer is malformed").WithRule("wire.payload").Because(err)
	}
	if signer != j.To || a.From != j.To || a.To != j.From || a.Nonce != j.Nonce {
		return mesh.Errorf(mesh.Forged, "the answer is not to our join").WithRule("wire.signer")
	}
	if a.Error != nil {
		return a.Error.Err()
	}
	if want := prove(s, "joined", j.To, j.From, j.Nonce); !hmac.Equal(want[:], a.Proof[:]) {
		return mesh.Errorf(mesh.Forged, "the other side does not know the invite").WithRule("join.proof")
	}
	return nil
}
