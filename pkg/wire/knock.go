package wire

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"strings"

	"github.com/libp2p/go-libp2p/core/crypto"

	"peercompute/pkg/mesh"
)

// ProtocolKnock is how a peer asks to be trusted without an invite. A peer that is
// not on the trust list reaches it only while its owner lets strangers knock. The
// knocker sends one Knock; the answers are any number of Knocked that say "wait",
// and one that ends it.
const ProtocolKnock = "/peercompute/knock/1"

// MaxKnock bounds a knock message and its answer, in bytes.
const MaxKnock = 8 << 10

const (
	domainKnock = "peercompute/knock"
	typeKnock   = "/peercompute/knock/1"
	typeKnocked = "/peercompute/knocked/1"
)

// Knock asks to be trusted. It is signed by the one who asks. It proves nothing
// but the key: two persons compare the fingerprint.
type Knock struct {
	Version uint        `cbor:"1,keyasint"`
	From    mesh.PeerID `cbor:"2,keyasint"`
	To      mesh.PeerID `cbor:"3,keyasint"`
	Nonce   Nonce       `cbor:"4,keyasint"`
	Name    string      `cbor:"5,keyasint"` // what it would like to be called
	Addrs   []string    `cbor:"6,keyasint"` // where it can be dialled; multiaddrs without /p2p
}

// KnockState is how a knock stands. The zero value is none.
type KnockState uint8

// The states.
const (
	KnockWaiting  KnockState = 1 // a person is to decide
	KnockApproved KnockState = 2
	KnockRefused  KnockState = 3 // Error says why
)

// Knocked is an answer to a knock.
type Knocked struct {
	Version uint        `cbor:"1,keyasint"`
	From    mesh.PeerID `cbor:"2,keyasint"`
	To      mesh.PeerID `cbor:"3,keyasint"`
	Nonce   Nonce       `cbor:"4,keyasint"` // of the Knock
	State   KnockState  `cbor:"5,keyasint"`
	Wait    int64       `cbor:"6,keyasint,omitempty"` // waiting: how long at most, in seconds
	Error   *Error      `cbor:"7,keyasint,omitempty"` // refused
}

// NewKnock makes a knock message.
func NewKnock(me, to mesh.PeerID, name string, addrs []string) Knock {
	return Knock{Version: Version, From: me, To: to, Nonce: NewNonce(), Name: name, Addrs: addrs}
}

// Answer is the answer that says how it stands.
func (k Knock) Answer(s KnockState, err error) Knocked {
	a := Knocked{Version: Version, From: k.To, To: k.From, Nonce: k.Nonce, State: s}
	if err != nil {
		a.State, a.Error = KnockRefused, NewError(err)
	}
	return a
}

// SealKnock signs a knock message.
func SealKnock(key crypto.PrivKey, k Knock) ([]byte, error) {
	return seal(key, domainKnock, typeKnock, k)
}

// SealKnocked signs the answer to a knock.
func SealKnocked(key crypto.PrivKey, a Knocked) ([]byte, error) {
	return seal(key, domainKnock, typeKnocked, a)
}

// OpenKnock verifies that data is from's own knock at me.
func OpenKnock(data []byte, from, me mesh.PeerID) (*Knock, error) {
	payload, rest, signer, err := open(data, MaxKnock, domainKnock, typeKnock)
	if err != nil {
		return nil, err
	}
	var k Knock
	if err := Unmarshal(payload, &k, MaxKnock); err != nil || rest != "" || k.Version != Version {
		return nil, mesh.Errorf(mesh.Forged, "the knock is malformed").WithRule("wire.payload").Because(err)
	}
	if signer != from || k.From != from || k.To != me {
		return nil, mesh.Errorf(mesh.Forged, "the knock is another's").WithRule("wire.signer")
	}
	return &k, nil
}

// OpenKnocked verifies an answer to k. A refusal is returned as its error.
func OpenKnocked(data []byte, k Knock) (*Knocked, error) {
	payload, rest, signer, err := open(data, MaxKnock, domainKnock, typeKnocked)
	if err != nil {
		return nil, err
	}
	var a Knocked
	if err := Unmarshal(payload, &a, MaxKnock); err != nil || rest != "" || a.Version != Version {
		return nil, mesh.Errorf(mesh.Forged, "the answer is malformed").WithRule("wire.payload").Because(err)
	}
	if signer != k.To || a.From != k.To || a.To != k.From || a.Nonce != k.Nonce {
		return nil, mesh.Errorf(mesh.Forged, "the answer is not to our knock").WithRule("wire.signer")
	}
	switch {
	case a.Error != nil:
		return nil, a.Error.Err()
	case a.State == KnockWaiting || a.State == KnockApproved:
		return &a, nil
	}
	return nil, mesh.Errorf(mesh.Unsupported, "the answer %d is not known here", a.State).WithRule("wire.payload")
}

// crockford has no letters that are taken for digits when read out.
const crockford = "0123456789abcdefghjkmnpqrstvwxyz"

// fingerprintBytes is enough that nobody finds a second key with the same
// fingerprint: 80 bits.
const fingerprintBytes = 10

// Fingerprint is what two persons compare, each reading it on their own machine,
// so that nobody in between is taken for either of them: four groups that depend
// on both keys and on who knocks.
func Fingerprint(from, to mesh.PeerID) string {
	h := sha256.New()
	fmt.Fprintf(h, "peercompute/knock/1\x00%d\x00%s%d\x00%s", len(from), string(from), len(to), string(to))
	s := base32.NewEncoding(crockford).WithPadding(base32.NoPadding).EncodeToString(h.Sum(nil)[:fingerprintBytes])
	return s[:4] + "-" + s[4:8] + "-" + s[8:12] + "-" + s[12:]
}

// PlainFingerprint is a fingerprint as a person may type it, without its hyphens,
// in lower case and with the letters put right that are no digits.
func PlainFingerprint(s string) string {
	return strings.NewReplacer("-", "", " ", "", "o", "0", "i", "1", "l", "1").Replace(strings.ToLower(s))
}
