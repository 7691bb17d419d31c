package mesh

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
)

// Bounds of the signatures in a Spec.
const (
	MaxSignatures       = 4
	maxSignedText       = 4 << 10
	maxSignature        = 128
	imageSignature      = "cosign container image signature"
	maxSigningKey       = 1 << 10
	signingFingerprint  = 8 // bytes of it that people see
	signingKeyBlockType = "PUBLIC KEY"
)

// Signature says that the holder of a SigningKey stands behind what a spec runs. It
// is one that cosign makes with a key pair: ECDSA on P-256 over SHA-256, in ASN.1.
type Signature struct {
	// Text is what was signed for an image: JSON that names the digest of its manifest
	// (cosign's "simple signing"). It is empty for a module, whose own bytes are signed.
	Text  []byte `json:"text,omitempty" cbor:"1,keyasint,omitempty"`
	Value []byte `json:"value" cbor:"2,keyasint"`
}

func (s Signature) valid() bool {
	return len(s.Text) <= maxSignedText && len(s.Value) > 0 && len(s.Value) <= maxSignature
}

// Image is the digest that the signed text says the image has.
func (s Signature) Image() (string, error) {
	var text struct {
		Critical struct {
			Image struct {
				Digest string `json:"docker-manifest-digest"`
			} `json:"image"`
			Type string `json:"type"`
		} `json:"critical"`
	}
	if err := json.Unmarshal(s.Text, &text); err != nil {
		return "", fmt.Errorf("what was signed is not JSON: %w", err)
	}
	if text.Critical.Type != imageSignature || !ValidDigest(text.Critical.Image.Digest) {
		return "", errors.New("what was signed does not say which image is meant, as cosign writes it")
	}
	return text.Critical.Image.Digest, nil
}

// SigningKey is the public half of a cosign key pair. The zero value verifies nothing.
type SigningKey struct {
	der string
	key *ecdsa.PublicKey
}

// ParseSigningKey reads a public key: PEM, as in cosign.pub, or what String returns.
func ParseSigningKey(text string) (SigningKey, error) {
	wrong := func(why string) (SigningKey, error) {
		return SigningKey{}, Errorf(Invalid, "that is no public key of cosign's: %s", why).
			WithHint("a key pair is made with: cosign generate-key-pair; cosign.pub is the half to give here")
	}
	if len(text) > maxSigningKey {
		return wrong("it is too long")
	}
	der, err := base64.StdEncoding.Strict().DecodeString(text)
	if block, rest := pem.Decode([]byte(text)); block != nil {
		if block.Type != signingKeyBlockType || len(rest) > 0 {
			return wrong("want one PEM block of type " + signingKeyBlockType)
		}
		der, err = block.Bytes, nil
	}
	if err != nil || len(der) == 0 {
		return wrong("it is neither PEM nor base64")
	}
	parsed, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return wrong("it cannot be read")
	}
	key, ok := parsed.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return wrong("want an ECDSA key on the curve P-256")
	}
	// One form only, so that a key is one text.
	if der, err = x509.MarshalPKIXPublicKey(key); err != nil {
		return wrong("it cannot be written")
	}
	return SigningKey{string(der), key}, nil
}

// String is the key in one line, for machines.
func (k SigningKey) String() string { return base64.StdEncoding.EncodeToString([]byte(k.der)) }

// Fingerprint is the start of the SHA-256 of the key's DER, in hex, for people.
func (k SigningKey) Fingerprint() string {
	sum := sha256.Sum256([]byte(k.der))
	return hex.EncodeToString(sum[:signingFingerprint])
}

// Signed reports whether the key signed what runs: for a container the text must
// name digest, for a module its bytes, whose digest it is, were signed.
func (k SigningKey) Signed(r Runtime, digest string, s Signature) bool {
	if k.key == nil || !ValidDigest(digest) || !s.valid() {
		return false
	}
	switch r {
	case Container:
		named, err := s.Image()
		sum := sha256.Sum256(s.Text)
		return err == nil && named == digest && ecdsa.VerifyASN1(k.key, sum[:], s.Value)
	case Wasm:
		sum, err := hex.DecodeString(digest[len("sha256:"):])
		return err == nil && len(s.Text) == 0 && ecdsa.VerifyASN1(k.key, sum, s.Value)
	}
	return false
}

func (s Spec) validateSignatures(say func(string, ...any)) {
	if len(s.Signatures) > MaxSignatures {
		say("more than %d signatures", MaxSignatures)
	}
	for _, sig := range s.Signatures {
		if !sig.valid() {
			say("a signature is empty or too long")
			return
		}
	}
}
