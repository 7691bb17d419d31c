// Package audit owns the log of what this node decided and did, and for whom. Each
// entry is chained to the one before by its hash, and written in the transaction
// of the effect that it records: neither is on disk without the other, and it
// costs no fsync of its own. What has no effect, such as a refusal, is counted
// where it comes often. The log is bounded: its oldest entries go, and an entry in
// the chain says up to where, so that a cut of ours differs from a cut by somebody
// else. It holds no secret and no value of an environment, and decides nothing.
package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

// Hash is the SHA-256 of an entry.
type Hash [sha256.Size]byte

// MarshalText writes a hash as hex digits.
func (h Hash) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h[:])), nil }

// UnmarshalText reads hex digits.
func (h *Hash) UnmarshalText(b []byte) error {
	if len(b) != hex.EncodedLen(len(h)) {
		return fmt.Errorf("a hash has %d hex digits, not %d", hex.EncodedLen(len(h)), len(b))
	}
	_, err := hex.Decode(h[:], b)
	return err
}

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// Head names the newest entry of a log, and with it all before: whoever keeps it
// can tell later whether the log was rewritten. The zero value is an empty log's.
type Head struct {
	Seq  uint64 `json:"seq"`
	Hash Hash   `json:"hash"`
}

// Who acts, besides peers, which are named by their ID.
const (
	Local = "local" // the person at this machine
	Node  = "node"  // peerd by itself
)

// The outcomes.
const (
	Done    = "done"
	Refused = "refused"
)

// Entry is one decision or effect. Fields are append-only: they are hashed as JSON.
type Entry struct {
	Seq     uint64    `json:"seq"` // from 1; set by Append
	Prev    Hash      `json:"prev"`
	Time    time.Time `json:"time"`
	Actor   string    `json:"actor"`  // a peer's ID, Local or Node
	Action  string    `json:"action"` // "deploy", "grant.put"
	Subject string    `json:"subject,omitempty"`
	Rule    string    `json:"rule,omitempty"` // that decided
	Outcome string    `json:"outcome"`
	Detail  string    `json:"detail,omitempty"` // one line for people
	Count   int       `json:"count,omitempty"`  // how many more like it there were; 0 = this is one
}

// Line is an entry with its hash, as it is shown and exported.
type Line struct {
	Entry
	Hash Hash `json:"hash"`
}

const maxText = 300 // bytes of any of an entry's strings

// clean makes a string fit: bounded, and the same after JSON and back.
func clean(s string) string {
	if len(s) > maxText {
		s = s[:maxText]
	}
	return strings.ToValidUTF8(s, "")
}

var domain = []byte("peercompute/audit/1\x00")

// encode is the entry's JSON and the hash of it.
func (e Entry) encode() ([]byte, Hash, error) {
	b, err := json.Marshal(e)
	if err != nil {
		return nil, Hash{}, err
	}
	return b, hashOf(b), nil
}

func hashOf(data []byte) (h Hash) {
	s := sha256.New()
	s.Write(domain)
	s.Write(data)
	s.Sum(h[:0])
	return h
}

func decode(data []byte) (Entry, error) {
	var e Entry
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	return e, dec.Decode(&e)
}

func key(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }

var keyHead = []byte("audit_head") // in store.Meta: sequence number (8) and hash of the newest entry

func readHead(tx *store.Tx) (Head, error) {
	v := tx.Get(store.Meta, keyHead)
	if v == nil {
		return Head{}, nil
	}
	var h Head
	if len(v) != 8+len(h.Hash) {
		return h, mesh.Errorf(mesh.Internal, "the head of the audit log is damaged")
	}
	h.Seq = binary.BigEndian.Uint64(v)
	copy(h.Hash[:], v[8:])
	return h, nil
}

// Append writes an entry. Call it in the transaction of the effect that it
// records; Seq and Prev are set here.
func Append(tx *store.Tx, e Entry) error {
	head, err := readHead(tx)
	if err != nil {
		return err
	}
	if head, err = cut(tx, head, e.Time); err != nil {
		return err
	}
	_, err = put(tx, head, e)
	return err
}

func put(tx *store.Tx, head Head, e Entry) (Head, error) {
	e.Seq, e.Prev, e.Time = head.Seq+1, head.Hash, e.Time.UTC().Round(0)
	for _, s := range []*string{&e.Actor, &e.Action, &e.Subject, &e.Rule, &e.Outcome, &e.Detail} {
		*s = clean(*s)
	}
	data, hash, err := e.encode()
	if err != nil {
		return head, err
	}
	value := append(append(make([]byte, 0, len(hash)+len(data)), hash[:]...), data...)
	if err := tx.Append(store.Audit, key(e.Seq), value); err != nil {
		return head, err
	}
	next := Head{e.Seq, hash}
	return next, tx.Put(store.Meta, keyHead, append(key(next.Seq), next.Hash[:]...))
}

// Bounds of the log.
const (
	MaxEntries = 1 << 16 // some 25 MB
	cutAtOnce  = 512     // entries that go together
)

const actionCut = "audit.cut"

// cut drops the oldest entries of a full log, after an entry that names the last
// of them with its hash.
func cut(tx *store.Tx, head Head, now time.Time) (Head, error) {
	k, _ := tx.First(store.Audit)
	if len(k) != 8 || head.Seq-binary.BigEndian.Uint64(k) < MaxEntries-2 { // there is room for two more
		return head, nil
	}
	last := binary.BigEndian.Uint64(k) + cutAtOnce - 1
	v := tx.Get(store.Audit, key(last))
	if len(v) < sha256.Size {
		return head, nil // a damaged log is not cut: that would hide the damage
	}
	head, err := put(tx, head, Entry{
		Time: now, Actor: Node, Action: actionCut, Outcome: Done, Subject: fmt.Sprint(last), Detail: Hash(v[:sha256.Size]).String(),
	})
	for seq := binary.BigEndian.Uint64(k); err == nil && seq <= last; seq++ {
		err = tx.Delete(store.Audit, key(seq))
	}
	return head, err
}
