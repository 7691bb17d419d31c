package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"peercompute/test/internal/testmesh"
)

// Bob lets alice run only what the holder of a key has signed.
func TestSigned(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice, bob := m.Peer("alice"), m.Peer("bob")
	m.Lend(bob, alice)
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	public := file("cosign.pub", string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
	sign := func(text []byte) string {
		sum := sha256.Sum256(text)
		value, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		return base64.StdEncoding.EncodeToString(value)
	}
	bob.Must("peers", "allow", "alice", "--signed-by", public)

	hello := testmesh.Tiny(t, "hello")
	module, err := os.ReadFile(hello)
	if err != nil {
		t.Fatal(err)
	}
	refused(t, alice.Ctl("deploy", hello, "--peer", "bob"), "bob refused", "[grant.signed-by]", "--signature FILE")
	refused(t, alice.Ctl("run", hello, "--peer", "bob"), "bob refused", "[grant.signed-by]")
	good, bad := file("good.sig", sign(module)+"\n"), file("bad.sig", sign([]byte("another module")))
	refused(t, alice.Ctl("deploy", hello, "--peer", "bob", "--signature", bad), "bob refused", "[grant.signed-by]", "no signature that came along")
	deploy(t, alice, hello, "--peer", "bob", "--signature", good)
	if r := alice.Ctl("run", hello, "--peer", "bob", "--signature", good); r.Code != 0 {
		t.Errorf("a signed job: %+v", r)
	}

	// Of an image the signature names the digest, and pins it.
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte("a manifest")))
	text := fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":"web"},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, digest)
	image := file("image.json", fmt.Sprintf(`{"Base64Signature":%q,"Payload":%q,"Cert":null}`, sign(text), base64.StdEncoding.EncodeToString(text)))
	row := func(args ...string) string {
		r := alice.Ctl(append([]string{"explain", "web:1", "--peer", "bob", "--port", "80"}, args...)...)
		for line := range strings.Lines(r.Stdout) {
			if strings.HasPrefix(line, "grant.signed-by ") {
				return strings.TrimSpace(line)
			}
		}
		t.Fatalf("no such rule: %+v", r)
		return ""
	}
	if got := row("--signature", image); !strings.Contains(got, digest) || !strings.HasSuffix(got, "yes") {
		t.Error(got)
	}
	if got := row(); !strings.HasSuffix(got, "no") {
		t.Error(got)
	}
	bob.Must("peers", "allow", "alice", "--signed-by", "none")
	if got := row(); !strings.HasSuffix(got, "yes") {
		t.Error(got)
	}
}
