// Package secret owns how a secret travels and how it lies on disk. On its way it is
// encrypted to the one peer that it is for; at rest to a key of that peer's own, which is
// in no backup. It keeps nothing itself, and no function here returns a digest of a value.
package secret

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/age"
	"filippo.io/age/agessh"

	"peercompute/pkg/identity"
	"peercompute/pkg/mesh"
)

// MaxSealed bounds a sealed secret, in bytes: the value and what is added.
const MaxSealed = mesh.MaxSecret + 2<<10

// domain begins what is sealed, so that nothing else that was encrypted to a node's key
// can be taken for a secret.
const domain = "peercompute/secret/1\x00"

const sshType = "ssh-ed25519"

// Seal encrypts a value so that only to can read it, and takes it only as a secret of this
// name, from this peer: whoever copies what was sealed can do nothing with it.
func Seal(from, to mesh.PeerID, name string, value []byte) ([]byte, error) {
	if err := mesh.ValidSecret(name, value); err != nil {
		return nil, err
	}
	r, err := recipient(to)
	if err != nil {
		return nil, err
	}
	return encrypt(r, bound(from, to, name, value))
}

// recipient is a peer's key as one to encrypt to.
func recipient(to mesh.PeerID) (age.Recipient, error) {
	if err := identity.CheckPeer(to); err != nil { // an Ed25519 key, and a sound one
		return nil, err
	}
	key, err := to.ExtractPublicKey()
	if err != nil {
		return nil, err
	}
	raw, err := key.Raw()
	if err != nil {
		return nil, err
	}
	// As ssh writes it, which is the form that age derives an X25519 key from.
	b := binary.BigEndian.AppendUint32(nil, uint32(len(sshType)))
	b = binary.BigEndian.AppendUint32(append(b, sshType...), uint32(len(raw)))
	return agessh.ParseRecipient(sshType + " " + base64.StdEncoding.EncodeToString(append(b, raw...)))
}

// bound is a value with whose it is. Each part is preceded by its length.
func bound(from, to mesh.PeerID, name string, value []byte) []byte {
	b := []byte(domain)
	for _, part := range [][]byte{[]byte(from), []byte(to), []byte(name), value} {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(part))), part...)
	}
	return b
}

// Open decrypts what from sealed for this node under a name.
func Open(key *identity.Key, from mesh.PeerID, name string, sealed []byte) ([]byte, error) {
	refuse := func(err error) error {
		return mesh.Errorf(mesh.Forged, "the secret was not sealed by you for this peer under this name").WithRule("secret.sealed").Because(err)
	}
	if len(sealed) > MaxSealed {
		return nil, mesh.Errorf(mesh.TooLarge, "a secret has at most %d KiB", mesh.MaxSecret>>10).WithRule("secret.size")
	}
	raw, err := key.Private.Raw()
	if err != nil {
		return nil, err
	}
	id, err := agessh.NewEd25519Identity(ed25519.PrivateKey(raw))
	if err != nil {
		return nil, err
	}
	plain, err := decrypt(id, sealed)
	if err != nil {
		return nil, refuse(err)
	}
	head := bound(from, key.ID, name, nil)
	head = head[:len(head)-4] // the length of the value, which is not known yet
	rest, ok := bytes.CutPrefix(plain, head)
	if !ok || len(rest) < 4 || uint64(binary.BigEndian.Uint32(rest)) != uint64(len(rest)-4) {
		return nil, refuse(errors.New("it is bound to something else"))
	}
	if err := mesh.ValidSecret(name, rest[4:]); err != nil {
		return nil, err
	}
	return rest[4:], nil
}

func encrypt(r age.Recipient, plain []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := age.Encrypt(&out, r)
	if err == nil {
		_, err = w.Write(plain)
	}
	if err == nil {
		err = w.Close()
	}
	return out.Bytes(), err
}

func decrypt(id age.Identity, sealed []byte) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(sealed), id)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(r, MaxSealed))
}

// KeyFile is the file of a Vault in a node's home.
const KeyFile = "secrets.key"

// Vault encrypts secrets for this node's own disk. Its key is another than the node's, so
// that it stays when that is rotated.
type Vault struct{ id *age.X25519Identity }

// OpenVault reads the key of the vault in a directory, and makes one if there is none.
func OpenVault(dir string) (*Vault, error) {
	path := filepath.Join(dir, KeyFile)
	v, err := readVault(path)
	if errors.Is(err, fs.ErrNotExist) {
		return newVault(dir, path)
	}
	return v, err
}

func readVault(path string) (*Vault, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the key of the secrets: %w", err)
	}
	id, err := age.ParseX25519Identity(strings.TrimSpace(string(b)))
	if err != nil {
		return nil, mesh.Errorf(mesh.Invalid, "%s is damaged, so the secrets that are kept here cannot be read", path).
			WithHint("put it back from a backup of this machine; or move it away, and have all secrets set again")
	}
	return &Vault{id}, nil
}

func newVault(dir, path string) (*Vault, error) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(dir, KeyFile+".*") // 0600
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(id.String() + "\n")
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Link(f.Name(), path) // and never over one that another has made meanwhile
	}
	if errors.Is(err, fs.ErrExist) {
		return readVault(path)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot write the key of the secrets: %w", err)
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	return &Vault{id}, errors.Join(d.Sync(), d.Close())
}

// Lock encrypts a value for the disk.
func (v *Vault) Lock(value []byte) ([]byte, error) { return encrypt(v.id.Recipient(), value) }

// Unlock is a value that Lock encrypted.
func (v *Vault) Unlock(locked []byte) ([]byte, error) { return decrypt(v.id, locked) }
