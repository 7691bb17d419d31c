package security

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"peercompute/pkg/mesh"
)

// envelope is a signed message taken apart (RFC 0002), to be put together wrongly.
// It is written out by hand, so that no library stands between an attack and the
// bytes.
type envelope struct {
	key     []byte // the Ed25519 point as it is encoded
	typ     []byte
	payload []byte
	sig     []byte
}

func (e envelope) bytes() []byte {
	out := field(nil, 1, append([]byte{8, 1}, field(nil, 2, e.key)...)) // key type 1: Ed25519
	out = field(out, 2, e.typ)
	out = field(out, 3, e.payload)
	return field(out, 5, e.sig)
}

// field appends a length-delimited protobuf field.
func field(out []byte, number byte, data []byte) []byte {
	out = append(out, number<<3|2)
	return append(binary.AppendUvarint(out, uint64(len(data))), data...)
}

// split takes an envelope apart and requires that putting it together again gives
// the same bytes: otherwise the attacks would be on something else.
func split(t testing.TB, data []byte) envelope {
	t.Helper()
	var e envelope
	fields := map[byte]*[]byte{1: &e.key, 2: &e.typ, 3: &e.payload, 5: &e.sig}
	for rest := data; len(rest) > 0; {
		n, width := binary.Uvarint(rest[1:])
		end := 1 + width + int(n)
		*fields[rest[0]>>3] = rest[1+width : end]
		rest = rest[end:]
	}
	e.key = e.key[len(e.key)-ed25519.PublicKeySize:]
	if !bytes.Equal(e.bytes(), data) {
		t.Fatalf("an envelope is not what the test believes:\n%x\n%x", data, e.bytes())
	}
	return e
}

// signed is what the signature of a request covers.
func (e envelope) signed() []byte {
	var out []byte
	for _, part := range [][]byte{[]byte("peercompute/request"), e.typ, e.payload} {
		out = append(binary.AppendUvarint(out, uint64(len(part))), part...)
	}
	return out
}

func (e envelope) resign(key ed25519.PrivateKey) envelope {
	e.key, e.sig = key.Public().(ed25519.PublicKey), ed25519.Sign(key, e.signed())
	return e
}

// idOf is the peer ID of a point, whatever point it is.
func idOf(t testing.TB, point []byte) mesh.PeerID {
	t.Helper()
	pub, err := crypto.UnmarshalEd25519PublicKey(bytes.Clone(point))
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return id
}
