// Package backup owns the format of an encrypted backup: who a node is (its key and
// the changes of it) and whom it trusts. Work, receipts, invites and logs are not in
// it. It reads and writes no files.
package backup

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"time"

	"filippo.io/age"

	"peercompute/pkg/identity"
	"peercompute/pkg/mesh"
	"peercompute/pkg/trust"
	"peercompute/pkg/wire"
)

// Version is that of the content. Others are refused.
const Version = 1

const (
	// MaxContent bounds the content, in bytes: some ten thousand peers.
	MaxContent = 32 << 20
	// MaxFile bounds a backup: the content and what encryption adds.
	MaxFile = MaxContent + 1<<20
	// WorkFactor is the logarithm of scrypt's cost: 18 takes 256 MB and about a
	// second. A backup that asks for more is refused, for it could ask for all memory.
	WorkFactor = 18
	// maxChanges bounds the changes of the node's own key.
	maxChanges = 10_000
)

// Content is what a backup holds.
type Content struct {
	Version int            `json:"version"`
	Made    time.Time      `json:"made"`
	Node    mesh.PeerID    `json:"node"`
	Role    string         `json:"role"` // "peer" or "gateway"
	Key     []byte         `json:"key"`  // as in a key file
	Changes []Change       `json:"changes,omitempty"`
	Trust   trust.Snapshot `json:"trust"`
}

// Change is one that the node's key went through: peers take no second one with the
// same number, and those that were away ask for the chain.
type Change struct {
	Seq         uint64      `json:"seq"`
	Old         mesh.PeerID `json:"old"`
	New         mesh.PeerID `json:"new"`
	Step        wire.Step   `json:"step"`
	Began       time.Time   `json:"began"`
	Until       time.Time   `json:"until"`
	Compromised bool        `json:"compromised,omitempty"`
}

// Seal encrypts a content. workFactor is WorkFactor except in tests.
func Seal(c *Content, passphrase string, workFactor int) ([]byte, error) {
	c.Version = Version
	plain, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	if len(plain) > MaxContent {
		return nil, mesh.Errorf(mesh.TooLarge, "the trust list makes the backup larger than %d MiB", MaxContent>>20).
			WithHint("remove peers that are not needed: peerctl peers remove")
	}
	to, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		return nil, err
	}
	to.SetWorkFactor(workFactor)
	var out bytes.Buffer
	w, err := age.Encrypt(&out, to)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(plain); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// Open decrypts a backup and checks all that is in it. The key is the node's.
func Open(data []byte, passphrase string) (*Content, *identity.Key, error) {
	if len(data) > MaxFile {
		return nil, nil, mesh.Errorf(mesh.TooLarge, "the backup is larger than %d MiB", MaxFile>>20)
	}
	from, err := age.NewScryptIdentity(passphrase)
	if err != nil {
		return nil, nil, mesh.Errorf(mesh.Invalid, "the passphrase is empty")
	}
	from.SetMaxWorkFactor(WorkFactor)
	r, err := age.Decrypt(bytes.NewReader(data), from)
	var wrong *age.NoIdentityMatchError
	if errors.As(err, &wrong) {
		return nil, nil, mesh.Errorf(mesh.Denied, "the passphrase does not open this backup").WithRule("backup.passphrase").
			WithHint("nothing was written; look for the passphrase that it was exported with")
	}
	var plain []byte
	if err == nil {
		plain, err = io.ReadAll(io.LimitReader(r, MaxContent+1))
		defer clear(plain)
	}
	if err != nil {
		return nil, nil, damaged(err)
	}
	return Parse(plain)
}

func damaged(err error) error {
	return mesh.Errorf(mesh.Invalid, "the backup is damaged, cut short or none of ours").WithRule("backup.form").
		WithHint("nothing was written; take another copy of it").Because(err)
}

// Parse reads the content, in the one form that Seal writes, and checks it.
func Parse(plain []byte) (*Content, *identity.Key, error) {
	if len(plain) > MaxContent {
		return nil, nil, mesh.Errorf(mesh.TooLarge, "the backup's content is larger than %d MiB", MaxContent>>20)
	}
	var v struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(plain, &v); err != nil {
		return nil, nil, damaged(err)
	}
	if v.Version != Version {
		return nil, nil, mesh.Errorf(mesh.Unsupported, "the backup is of version %d, and this program reads version %d", v.Version, Version).WithRule("backup.version").
			WithHint("restore it with the program that wrote it, or a newer one")
	}
	var c Content
	dec := json.NewDecoder(bytes.NewReader(plain))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		return nil, nil, damaged(err)
	}
	again, err := json.Marshal(&c)
	defer clear(again)
	if err != nil || !bytes.Equal(again, plain) {
		return nil, nil, damaged(errors.New("it is not in the form that it is written in"))
	}
	key, err := c.check()
	if err != nil {
		return nil, nil, err
	}
	return &c, key, nil
}

// check refuses keys that are weak or do not belong together. What is on the trust
// list is checked when it is put back.
func (c *Content) check() (*identity.Key, error) {
	key, err := identity.Parse(c.Key)
	if err != nil {
		return nil, damaged(err)
	}
	if key.ID != c.Node {
		return nil, damaged(errors.New("its key is another node's"))
	}
	if len(c.Changes) > maxChanges {
		return nil, mesh.Errorf(mesh.Quota, "more than %d changes of the key", maxChanges)
	}
	ids := []mesh.PeerID{c.Node}
	for i, ch := range c.Changes {
		r, err := ch.Step.Open()
		if err != nil {
			return nil, damaged(err)
		}
		if r.Seq != uint64(i+1) || r.Seq != ch.Seq || r.Old != ch.Old || r.New != ch.New || i > 0 && ch.Old != c.Changes[i-1].New {
			return nil, damaged(errors.New("the changes of its key do not follow each other"))
		}
		ids = append(ids, ch.Old, ch.New)
	}
	if n := len(c.Changes); n > 0 && c.Changes[n-1].New != c.Node {
		return nil, damaged(errors.New("the changes of its key do not lead to it"))
	}
	for _, g := range c.Trust.Grants {
		ids = append(ids, g.Peer)
	}
	for _, f := range c.Trust.Retired {
		ids = append(ids, f.Key, f.Next)
	}
	for _, id := range ids {
		if err := identity.CheckPeer(id); err != nil {
			return nil, err
		}
	}
	return key, nil
}
