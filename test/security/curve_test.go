package security

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha512"
	"iter"
	"math/big"
	"testing"

	"filippo.io/edwards25519"

	"peercompute/pkg/identity"
	"peercompute/pkg/mesh"
	"peercompute/pkg/trust"
	"peercompute/pkg/wire"
)

// order is L, the order of the curve's large subgroup.
var order, _ = new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)

func bigOf(little []byte) *big.Int {
	b := bytes.Clone(little)
	for i, j := 0, len(b)-1; i < j; i, j = i+1, j-1 {
		b[i], b[j] = b[j], b[i]
	}
	return new(big.Int).SetBytes(b)
}

// littleOf is n as 32 bytes, or nil where it does not fit.
func littleOf(n *big.Int) []byte {
	if n.Sign() < 0 || n.BitLen() > 256 {
		return nil
	}
	b := n.FillBytes(make([]byte, 32))
	for i, j := 0, len(b)-1; i < j; i, j = i+1, j-1 {
		b[i], b[j] = b[j], b[i]
	}
	return b
}

func randomScalar() *edwards25519.Scalar {
	var b [64]byte
	rand.Read(b[:])
	s, err := edwards25519.NewScalar().SetUniformBytes(b[:])
	if err != nil {
		panic(err)
	}
	return s
}

// timesOrder is L·p, which is the identity exactly for points without a small part.
func timesOrder(p *edwards25519.Point) *edwards25519.Point {
	less, err := edwards25519.NewScalar().SetCanonicalBytes(littleOf(new(big.Int).Sub(order, big.NewInt(1))))
	if err != nil {
		panic(err)
	}
	return new(edwards25519.Point).Add(new(edwards25519.Point).ScalarMult(less, p), p)
}

// torsion returns the eight points of small order.
func torsion() (all []*edwards25519.Point) {
	for {
		var b [32]byte
		rand.Read(b[:])
		p, err := new(edwards25519.Point).SetBytes(b[:])
		if err != nil {
			continue
		}
		base := timesOrder(p)
		all = []*edwards25519.Point{edwards25519.NewIdentityPoint()}
		for len(all) < 8 {
			next := new(edwards25519.Point).Add(all[len(all)-1], base)
			if next.Equal(all[0]) == 1 {
				break
			}
			all = append(all, next)
		}
		if len(all) == 8 {
			return all
		}
	}
}

// weakEncodings are all byte strings that a decoder may take for a point of small
// order: the canonical ones, y + p where that still fits, and a sign for x = 0.
func weakEncodings(t testing.TB) (out [][]byte) {
	t.Helper()
	p := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	seen := map[string]bool{}
	for _, point := range torsion() {
		raw := point.Bytes()
		y := bytes.Clone(raw)
		y[31] &= 0x7f
		for _, n := range []*big.Int{bigOf(y), new(big.Int).Add(bigOf(y), p)} {
			if n.BitLen() > 255 {
				continue
			}
			for _, sign := range []byte{0, 0x80} {
				b := littleOf(n)
				b[31] |= sign
				if q, err := new(edwards25519.Point).SetBytes(b); err == nil && new(edwards25519.Point).MultByCofactor(q).Equal(edwards25519.NewIdentityPoint()) == 1 && !seen[string(b)] {
					seen[string(b)] = true
					out = append(out, b)
				}
			}
		}
	}
	if len(out) != 14 {
		t.Fatalf("%d encodings of small order, want the 14 that are known", len(out))
	}
	return out
}

// challenge is Ed25519's h = H(R, A, M) mod L.
func challenge(r, a, m []byte) *edwards25519.Scalar {
	h := sha512.New()
	h.Write(r)
	h.Write(a)
	h.Write(m)
	s, err := edwards25519.NewScalar().SetUniformBytes(h.Sum(nil))
	if err != nil {
		panic(err)
	}
	return s
}

// mixedKey is a key with a small part, aB + T, whose holder can sign with it.
type mixedKey struct {
	a     *edwards25519.Scalar
	point []byte
}

func newMixedKey(small *edwards25519.Point) mixedKey {
	a := randomScalar()
	p := new(edwards25519.Point).Add(new(edwards25519.Point).ScalarBaseMult(a), small)
	return mixedKey{a, p.Bytes()}
}

// sign makes a signature whose R has the small part r, valid for those who
// multiply by the cofactor, and sometimes for those who do not.
func (k mixedKey) sign(m []byte, r *edwards25519.Point) []byte {
	n := randomScalar()
	R := new(edwards25519.Point).Add(new(edwards25519.Point).ScalarBaseMult(n), r).Bytes()
	s := edwards25519.NewScalar().MultiplyAdd(challenge(R, k.point, m), k.a, n)
	return append(R, s.Bytes()...)
}

// edgeCases are requests under keys and signatures at the edges of Ed25519: small
// order, mixed order, encodings that are not canonical, S beyond L. Those that any
// correct verifier refuses and those that a verifier may take (the speccheck cases)
// are all attempts to be taken for somebody: none may be admitted.
func edgeCases(t testing.TB, g *target, alice, mallory *identity.Key, verifies *int) iter.Seq2[mesh.PeerID, []byte] {
	weak, small := weakEncodings(t), torsion()
	honest := private(t, alice)
	plain := func(point []byte) (envelope, mesh.PeerID) {
		id := idOf(t, point)
		r := g.request(alice, wire.VerbStop, wire.Ref{Workload: "aaaaaaaaaaaaaaaa"})
		r.From = id
		raw, err := wire.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return envelope{key: point, typ: []byte("/peercompute/request/1/stop"), payload: raw}, id
	}
	conns := func(id mesh.PeerID) []mesh.PeerID { return []mesh.PeerID{id, alice.ID, mallory.ID} }
	return func(yield func(mesh.PeerID, []byte) bool) {
		send := func(e envelope, id mesh.PeerID) bool {
			if ed25519.Verify(e.key, e.signed(), e.sig) {
				*verifies++
			}
			for _, c := range conns(id) {
				if !yield(c, e.bytes()) {
					return false
				}
			}
			return true
		}
		// Small A: every R of small order and one of large, S zero, fitting, and over L.
		for _, a := range weak {
			for _, r := range append([][]byte{nil}, weak...) {
				for range 8 { // the nonce decides whether h·A vanishes
					e, id := plain(a)
					s := randomScalar()
					R, S := new(edwards25519.Point).ScalarBaseMult(s).Bytes(), s.Bytes()
					if r != nil {
						R, S = r, make([]byte, 32)
					}
					for _, over := range []*big.Int{big.NewInt(0), order, new(big.Int).Lsh(order, 3)} {
						if sum := littleOf(new(big.Int).Add(bigOf(S), over)); sum != nil {
							e.sig = append(bytes.Clone(R), sum...)
							if !send(e, id) {
								return
							}
						}
					}
				}
			}
		}
		// Mixed A: R of small order, mixed, plain.
		for _, part := range small[1:] {
			k := newMixedKey(part)
			for _, r := range small {
				for range 8 {
					e, id := plain(k.point)
					e.sig = k.sign(e.signed(), r)
					if !send(e, id) {
						return
					}
				}
			}
		}
		// Alice's own signatures, bent: none of these is hers.
		for range 40 {
			e := split(t, seal(t, alice, g.request(alice, wire.VerbStop, wire.Ref{Workload: "aaaaaaaaaaaaaaaa"})))
			R, S := e.sig[:32], e.sig[32:]
			for k := int64(1); ; k++ { // S + kL: the same modulo L
				sum := littleOf(new(big.Int).Add(bigOf(S), new(big.Int).Mul(order, big.NewInt(k))))
				if sum == nil {
					break
				}
				bent := e
				bent.sig = append(bytes.Clone(R), sum...)
				if !send(bent, alice.ID) {
					return
				}
			}
			point, err := new(edwards25519.Point).SetBytes(R)
			if err != nil {
				t.Fatal(err)
			}
			A, err := new(edwards25519.Point).SetBytes(e.key)
			if err != nil {
				t.Fatal(err)
			}
			for _, part := range small[1:] {
				bent := e // R with a small part
				bent.sig = append(new(edwards25519.Point).Add(point, part).Bytes(), S...)
				if !send(bent, alice.ID) {
					return
				}
				bent = e // A with a small part
				bent.key = new(edwards25519.Point).Add(A, part).Bytes()
				if !send(bent, alice.ID) {
					return
				}
			}
			for _, r := range weak { // R of small order under her key
				for _, s := range [][]byte{make([]byte, 32), S} {
					bent := e
					bent.sig = append(bytes.Clone(r), s...)
					if !send(bent, alice.ID) {
						return
					}
				}
			}
			negative := littleOf(new(big.Int).Sub(order, bigOf(S)))
			bent := e
			bent.key, bent.sig = new(edwards25519.Point).Negate(A).Bytes(), append(new(edwards25519.Point).Negate(point).Bytes(), negative...)
			if !send(bent, alice.ID) {
				return
			}
			bent = e // signed without the domain
			bent.sig = ed25519.Sign(honest, e.payload)
			if !send(bent, alice.ID) {
				return
			}
		}
	}
}

// No key at an edge of the curve gets onto the trust list: what signs with it can
// never be a peer.
func TestEdgeKeysAreNeverTrusted(t *testing.T) {
	g := newTarget(t, newClock())
	points := weakEncodings(t)
	for _, part := range torsion()[1:] {
		points = append(points, newMixedKey(part).point)
	}
	for i, p := range points {
		err := g.trust.Put(t.Context(), trust.Grant{Peer: idOf(t, p), Name: "edge"})
		if e := mesh.AsError(err); e == nil || e.Rule != "identity.key" {
			t.Errorf("key %d, %x: %v, want it refused by identity.key", i, p, err)
		}
	}
	if err := g.trust.Put(t.Context(), trust.Grant{Peer: newKey(t).ID, Name: "ordinary"}); err != nil {
		t.Errorf("an ordinary key: %v", err)
	}
}
