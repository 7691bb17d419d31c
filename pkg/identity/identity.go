// Package identity owns the node key: it creates the key once, loads it, and
// refuses keys that are weak, readable by others, or of another type.
package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"filippo.io/edwards25519"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/crypto/pb"
	"github.com/libp2p/go-libp2p/core/peer"

	"peercompute/pkg/mesh"
)

// KeyFile is the name of the key's file in a node's home: PKCS #8 in PEM, 0600.
const KeyFile = "node.key"

const maxKeyFile = 4 << 10

// Key is the node's private key and the ID that follows from it.
type Key struct {
	Private crypto.PrivKey
	ID      mesh.PeerID
}

// Create makes a new key in dir and commits it to disk. It fails with
// fs.ErrExist if there is one already: a key is never overwritten.
func Create(dir string) (*Key, error) { return create(filepath.Join(dir, KeyFile)) }

func create(path string) (*Key, error) {
	_, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	k, err := newKey(priv)
	if err != nil {
		return nil, err
	}
	return k, k.save(path)
}

// Save commits a key to a directory that has none.
func (k *Key) Save(dir string) error { return k.save(filepath.Join(dir, KeyFile)) }

func (k *Key) save(path string) error {
	data, err := k.Encode()
	if err != nil {
		return err
	}
	if err := writeNew(path, data); err != nil {
		return fmt.Errorf("cannot save the node key: %w", err)
	}
	return nil
}

// Encode is the content of a key file.
func (k *Key) Encode() ([]byte, error) {
	raw, err := k.Private.Raw()
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(ed25519.PrivateKey(raw))
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// Load reads the key in dir. It fails with fs.ErrNotExist if there is none.
func Load(dir string) (*Key, error) { return load(filepath.Join(dir, KeyFile)) }

func load(path string) (*Key, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxKeyFile {
		return nil, mesh.Errorf(mesh.Invalid, "the node key %s is not a small regular file", path)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return nil, mesh.Errorf(mesh.Invalid, "the node key %s can be read by others (mode %04o)", path, info.Mode().Perm()).
			WithHint("if nobody else has read it: chmod 600 %s", path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	k, err := Parse(data)
	if err != nil {
		return nil, damaged(path, err)
	}
	return k, nil
}

// Parse reads the content of a key file.
func Parse(data []byte) (*Key, error) {
	block, rest := pem.Decode(data)
	if block == nil || block.Type != "PRIVATE KEY" || len(bytes.TrimSpace(rest)) != 0 {
		return nil, errors.New("not one PEM block of type PRIVATE KEY")
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	priv, ok := k.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("a %T, not Ed25519", k)
	}
	return newKey(priv)
}

func damaged(path string, err error) error {
	return mesh.Errorf(mesh.Invalid, "the node key %s is damaged", path).
		WithHint("restore it from a backup; without it this node's ID is lost").Because(err)
}

func newKey(priv ed25519.PrivateKey) (*Key, error) {
	k, err := crypto.UnmarshalEd25519PrivateKey(priv)
	if err != nil {
		return nil, err
	}
	id, err := peer.IDFromPrivateKey(k)
	if err != nil {
		return nil, err
	}
	return &Key{Private: k, ID: id}, nil
}

// writeNew creates path with data, durably, or fails if it exists. A crash leaves
// either nothing or the whole file.
func writeNew(path string, data []byte) error {
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, ".key-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	if err := os.Link(tmp.Name(), path); err != nil { // unlike rename, refuses to replace
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// CheckPeer refuses peer IDs whose key could make signatures ambiguous: other key
// types, hashed keys, non-canonical encodings, and points of small or mixed order.
func CheckPeer(id mesh.PeerID) error {
	refuse := func(why string) error {
		return mesh.Errorf(mesh.Invalid, "the key of peer %s is refused: %s", id, why).WithRule("identity.key").
			WithHint("only ordinary Ed25519 keys are trusted; let the other side create a new node key")
	}
	pub, err := id.ExtractPublicKey()
	if err != nil {
		return refuse("its ID does not contain an Ed25519 key")
	}
	if pub.Type() != pb.KeyType_Ed25519 {
		return refuse("it is not Ed25519")
	}
	raw, err := pub.Raw()
	if err != nil || len(raw) != ed25519.PublicKeySize {
		return refuse("it is malformed")
	}
	if want, err := peer.IDFromPublicKey(pub); err != nil || want != id {
		return refuse("its ID is not the canonical one")
	}
	p, err := new(edwards25519.Point).SetBytes(raw)
	if err != nil {
		return refuse("it is not a point of the curve")
	}
	if !bytes.Equal(p.Bytes(), raw) {
		return refuse("its encoding is not canonical")
	}
	if new(edwards25519.Point).MultByCofactor(p).Equal(edwards25519.NewIdentityPoint()) == 1 {
		return refuse("it is of small order")
	}
	if !torsionFree(p) {
		return refuse("it is of mixed order")
	}
	return nil
}

// torsionFree reports whether p lies in the group that ordinary keys lie in. About
// signatures under a key with a small part, correct verifiers disagree: what one
// takes for evidence another would refuse.
func torsionFree(p *edwards25519.Point) bool {
	minusOne, err := edwards25519.NewScalar().SetCanonicalBytes(orderMinusOne[:])
	if err != nil {
		panic(err) // the constant is wrong
	}
	q := new(edwards25519.Point).ScalarMult(minusOne, p)
	return q.Add(q, p).Equal(edwards25519.NewIdentityPoint()) == 1
}

// orderMinusOne is the order of the curve's large group less one, little-endian.
var orderMinusOne = [32]byte{
	0xec, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
	31: 0x10,
}

// Exists reports whether dir holds a key.
func Exists(dir string) (bool, error) {
	_, err := os.Lstat(filepath.Join(dir, KeyFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
