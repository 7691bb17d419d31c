package mesh

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"os"
	"strings"
	"testing"
)

func digestOf(s string) string {
	sum := sha256.Sum256([]byte(s))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// The files are openssl's, in the form in which cosign hands them out.
func signed(t testing.TB) (k SigningKey, image, module Signature) {
	t.Helper()
	read := func(name string) []byte {
		data, err := os.ReadFile("testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	k, err := ParseSigningKey(string(read("cosign.pub")))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Base64Signature []byte
		Payload         []byte
	}
	if err := json.Unmarshal(read("image.json"), &file); err != nil {
		t.Fatal(err)
	}
	value, err := base64.StdEncoding.DecodeString(string(read("module.sig")))
	if err != nil {
		t.Fatal(err)
	}
	return k, Signature{Text: file.Payload, Value: file.Base64Signature}, Signature{Value: value}
}

func TestSigned(t *testing.T) {
	k, image, module := signed(t)
	manifest, bytesOf := digestOf("a manifest"), digestOf("a module")
	if named, err := image.Image(); err != nil || named != manifest {
		t.Errorf("the text names %s, %v", named, err)
	}
	if !k.Signed(Container, manifest, image) || !k.Signed(Wasm, bytesOf, module) {
		t.Error("a good signature does not count")
	}
	again, err := ParseSigningKey(k.String())
	if err != nil || again.String() != k.String() || again.Fingerprint() != k.Fingerprint() || !again.Signed(Wasm, bytesOf, module) {
		t.Errorf("the key in one line: %v, %v", again, err)
	}
	text := func(s string) Signature { return Signature{Text: []byte(s), Value: image.Value} }
	other := func(s Signature) Signature {
		return Signature{Text: s.Text, Value: append(bytes.Clone(s.Value[:len(s.Value)-1]), s.Value[len(s.Value)-1]^1)}
	}
	foreign := newSigner(t)
	for name, ok := range map[string]bool{
		"another image":                   k.Signed(Container, digestOf("another"), image),
		"another module":                  k.Signed(Wasm, digestOf("another"), module),
		"no digest":                       k.Signed(Container, "", image),
		"no key":                          SigningKey{}.Signed(Container, manifest, image),
		"another key":                     foreign.Signed(Container, manifest, image),
		"another key, of a module":        foreign.Signed(Wasm, bytesOf, module),
		"an image's, for a module":        k.Signed(Wasm, manifest, image),
		"a module's, for an image":        k.Signed(Container, bytesOf, module),
		"a changed value":                 k.Signed(Container, manifest, other(image)),
		"a changed text":                  k.Signed(Container, manifest, text(strings.Replace(string(image.Text), "web", "bad", 1))),
		"no value":                        k.Signed(Container, manifest, Signature{Text: image.Text}),
		"a text of another kind":          k.Signed(Container, manifest, foreign.sign(strings.Replace(string(image.Text), "cosign container", "other", 1))),
		"a text of another kind, own key": foreign.Signed(Container, manifest, foreign.sign(strings.Replace(string(image.Text), "cosign container", "other", 1))),
		"a runtime that is none":          k.Signed("", manifest, image),
	} {
		if ok {
			t.Errorf("%s counts as signed", name)
		}
	}
	if !foreign.Signed(Container, manifest, foreign.sign(string(image.Text))) {
		t.Error("the other key's own signature does not count")
	}
}

// A spec carries few signatures, none of them long.
func TestSignaturesAreBounded(t *testing.T) {
	_, image, _ := signed(t)
	with := func(sigs ...Signature) error {
		return Spec{Name: "x", Runtime: Container, Image: "x", Signatures: sigs}.WithDefaults().Validate()
	}
	if err := with(image, image, image, image); err != nil {
		t.Error(err)
	}
	for what, err := range map[string]error{
		"too many":    with(image, image, image, image, image),
		"no value":    with(Signature{Text: image.Text}),
		"a long one":  with(Signature{Text: image.Text, Value: make([]byte, maxSignature+1)}),
		"a long text": with(Signature{Text: make([]byte, maxSignedText+1), Value: image.Value}),
	} {
		if KindOf(err) != Invalid {
			t.Errorf("%s: %v", what, err)
		}
	}
}

type signer struct {
	SigningKey
	private *ecdsa.PrivateKey
}

func newSigner(t testing.TB) signer {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k, err := ParseSigningKey(publicPEM(t, "PUBLIC KEY", &private.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	return signer{k, private}
}

func (s signer) sign(text string) Signature {
	sum := sha256.Sum256([]byte(text))
	value, err := ecdsa.SignASN1(rand.Reader, s.private, sum[:])
	if err != nil {
		panic(err)
	}
	return Signature{Text: []byte(text), Value: value}
}

func publicPEM(t testing.TB, kind string, key any) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func TestSigningKeysAreChecked(t *testing.T) {
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := publicPEM(t, "PUBLIC KEY", &p256.PublicKey)
	for name, text := range map[string]string{
		"empty": "", "words": "hello", "base64 of nothing": "aGVsbG8=", "another curve": publicPEM(t, "PUBLIC KEY", &p384.PublicKey),
		"another block": publicPEM(t, "PRIVATE KEY", &p256.PublicKey), "two": good + good, "long": strings.Repeat("A", 2000),
	} {
		if k, err := ParseSigningKey(text); KindOf(err) != Invalid {
			t.Errorf("%s: %v, %v", name, k, err)
		}
	}
}

func FuzzSigningKey(f *testing.F) {
	k, _, _ := signed(f)
	f.Add(k.String())
	f.Add("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
	f.Fuzz(func(t *testing.T, text string) {
		k, err := ParseSigningKey(text)
		if err != nil {
			return
		}
		if again, err := ParseSigningKey(k.String()); err != nil || again.String() != k.String() {
			t.Errorf("%q is read as %q and then as %q, %v", text, k, again, err)
		}
	})
}

func FuzzSignature(f *testing.F) {
	k, image, module := signed(f)
	f.Add(image.Text, image.Value)
	f.Add(module.Text, module.Value)
	manifest, bytesOf := digestOf("a manifest"), digestOf("a module")
	f.Fuzz(func(t *testing.T, text, value []byte) {
		s := Signature{Text: text, Value: value}
		// ECDSA's signatures come in pairs, so another value may be good; another text is not.
		if k.Signed(Container, manifest, s) && !bytes.Equal(text, image.Text) {
			t.Errorf("%q passes", text)
		}
		if k.Signed(Wasm, bytesOf, s) && len(text) > 0 {
			t.Errorf("a module's with the text %q passes", text)
		}
	})
}
