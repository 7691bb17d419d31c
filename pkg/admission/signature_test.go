package admission

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"peercompute/pkg/mesh"
)

func TestSignature(t *testing.T) {
	key := func() (*ecdsa.PrivateKey, string) {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKIXPublicKey(&k.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		return k, base64.StdEncoding.EncodeToString(der)
	}
	alice, aliceText := key()
	bob, bobText := key()
	a, b := "sha256:"+strings.Repeat("a", 64), "sha256:"+strings.Repeat("b", 64)
	sign := func(k *ecdsa.PrivateKey, digest string) mesh.Signature {
		text := fmt.Appendf(nil, `{"critical":{"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"}}`, digest)
		sum := sha256.Sum256(text)
		v, err := ecdsa.SignASN1(rand.Reader, k, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		return mesh.Signature{Text: text, Value: v}
	}
	for _, c := range []struct {
		name          string
		keys          []string
		image, digest string
		signatures    []mesh.Signature
		want          bool
	}{
		{"not asked for", nil, "web", "", nil, true},
		{"signed, pinned by the spec", []string{aliceText}, "web", a, []mesh.Signature{sign(alice, a)}, true},
		{"signed, pinned by the name", []string{aliceText}, "web@" + a, "", []mesh.Signature{sign(alice, a)}, true},
		{"by one of two", []string{bobText, aliceText}, "web", a, []mesh.Signature{sign(alice, a)}, true},
		{"among several", []string{bobText}, "web", a, []mesh.Signature{sign(alice, a), sign(bob, a)}, true},
		{"not pinned", []string{aliceText}, "web", "", []mesh.Signature{sign(alice, a)}, false},
		{"pinned by a name, but the spec counts", []string{aliceText}, "web@" + a, b, []mesh.Signature{sign(alice, a)}, false},
		{"no signature", []string{aliceText}, "web", a, nil, false},
		{"by another", []string{aliceText}, "web", a, []mesh.Signature{sign(bob, a)}, false},
		{"of another image", []string{aliceText}, "web", a, []mesh.Signature{sign(alice, b)}, false},
		{"a key that cannot be read", []string{"?"}, "web", a, []mesh.Signature{sign(alice, a)}, false},
	} {
		p, g, s, u := ample()
		g.Quota.SignedBy = c.keys
		s.Image, s.Digest, s.Signatures = c.image, c.digest, c.signatures
		d := Decide(p, g, s, u)
		if d.Allow != c.want || !c.want && (d.Rule != "grant.signed-by" || d.Reason == "") {
			t.Errorf("%s: %+v", c.name, d)
		}
	}
}
