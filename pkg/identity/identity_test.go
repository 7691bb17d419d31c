package identity

import (
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"peercompute/pkg/mesh"
)

func TestCreateLoad(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("Load of nothing: %v, want fs.ErrNotExist", err)
	}
	k, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Load(dir)
	if err != nil || got.ID != k.ID || !got.Private.Equals(k.Private) {
		t.Fatalf("Load = %v, %v; want the key that was created", got, err)
	}
	if _, err := Create(dir); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("second Create: %v, want fs.ErrExist", err)
	}
	if err := CheckPeer(k.ID); err != nil {
		t.Fatalf("own ID refused: %v", err)
	}
	left, _ := filepath.Glob(filepath.Join(dir, ".key-*"))
	if len(left) != 0 {
		t.Fatalf("temporary files left: %v", left)
	}
}

func TestLoadRefuses(t *testing.T) {
	dir := t.TempDir()
	if _, err := Create(dir); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, KeyFile)
	good, _ := os.ReadFile(path)
	for name, spoil := range map[string]func() error{
		"readable by others": func() error { return os.Chmod(path, 0o644) },
		"cut":                func() error { return os.WriteFile(path, good[:len(good)/2], 0o600) },
		"trailing":           func() error { return os.WriteFile(path, append(good, 'x'), 0o600) },
		"empty":              func() error { return os.WriteFile(path, nil, 0o600) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(dir); mesh.KindOf(err) != mesh.Invalid {
			t.Errorf("%s: %v, want Invalid", name, err)
		}
		os.Chmod(path, 0o600)
		os.WriteFile(path, good, 0o600)
	}
	if _, err := Load(dir); err != nil {
		t.Fatalf("the restored key does not load: %v", err)
	}
}

// The eight points of small order and non-canonical encodings of them, from
// the curve's definition (also listed in RFC 7748's and libsodium's blocklists).
var weakPoints = []string{
	"0100000000000000000000000000000000000000000000000000000000000000",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"0000000000000000000000000000000000000000000000000000000000000000",
	"0000000000000000000000000000000000000000000000000000000000000080",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // y = p: non-canonical 0
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // y = p+1: non-canonical 1
	"f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // y = p+3
	"0200000000000000000000000000000000000000000000000000000000000000", // not on the curve
	// An ordinary key plus one of the other seven points of small order: mixed order.
	"f0ec182c169c0b01b6b6bf0c5d2c1a85ea2560fc0ff00fbb645a25f01e65a71e",
	"205694440a3c93c2360e624f3dc5106f4429a6e77677de1cd185c1200bd3a14f",
	"413a480998ad6dd1d751fb6264f54f76f86aa02f4179ccfcc0a44e7e9bb30162",
}

func TestCheckPeerRefusesWeakKeys(t *testing.T) {
	for _, h := range weakPoints {
		raw, _ := hex.DecodeString(h)
		pub, err := crypto.UnmarshalEd25519PublicKey(raw)
		if err != nil {
			t.Fatal(err)
		}
		id, err := peer.IDFromPublicKey(pub)
		if err != nil {
			t.Fatal(err)
		}
		if err := CheckPeer(id); mesh.KindOf(err) != mesh.Invalid {
			t.Errorf("key %s: %v, want it refused", h, err)
		}
	}
	_, pub, err := crypto.GenerateSecp256k1Key(nil)
	if err == nil {
		id, _ := peer.IDFromPublicKey(pub)
		if CheckPeer(id) == nil {
			t.Error("a secp256k1 key was accepted")
		}
	}
	_, pub, err = crypto.GenerateKeyPair(crypto.RSA, 2048)
	if err != nil {
		t.Fatal(err)
	}
	id, _ := peer.IDFromPublicKey(pub)
	if CheckPeer(id) == nil {
		t.Error("an RSA key was accepted")
	}
}
