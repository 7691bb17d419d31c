package trust

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"time"

	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
	"peercompute/pkg/wire"
)

// entry is one line of the trust log. Hash covers the entry without it, and Prev
// is the Hash of the entry before: no line can be changed, dropped or swapped
// without breaking the chain.
type entry struct {
	Seq   uint64    `json:"seq"` // from 1
	Prev  string    `json:"prev"`
	Time  time.Time `json:"time"`
	Op    string    `json:"op"`
	Grant Grant     `json:"grant"`
	Hash  string    `json:"hash,omitempty"`

	Old   mesh.PeerID `json:"old,omitempty"`   // rotate, retire: the key that is replaced
	Until time.Time   `json:"until,omitzero"`  // rotate: until when it counts too
	Alone bool        `json:"alone,omitempty"` // rotate, retire: nor does any key before Old
	Proof *wire.Step  `json:"proof,omitempty"` // rotate: signed by both keys
}

const (
	opPut    = "put"
	opRemove = "remove"
	opRotate = "rotate" // Grant replaces that of Old
	opRetire = "retire" // Old does not count any more
)

var keyHead = []byte("trust_head") // in store.Meta: sequence number and hash of the last entry

func (e entry) digest() (string, error) {
	e.Hash = ""
	b, err := json.Marshal(e)
	if err != nil {
		return "", err
	}
	h := sha256.Sum256(append([]byte("peercompute/trust-log/1\x00"), b...))
	return hex.EncodeToString(h[:]), nil
}

type head struct {
	Seq  uint64 `json:"seq"`
	Hash string `json:"hash"`
}

// roll is who is on the list, as the log says.
type roll struct {
	grants  map[mesh.PeerID]Grant
	retired map[mesh.PeerID]retired // former keys of those on the list
}

func newRoll() roll { return roll{map[mesh.PeerID]Grant{}, map[mesh.PeerID]retired{}} }

// apply takes in one entry. It reports whether the operation is a known one.
func (r roll) apply(e entry) bool {
	switch e.Op {
	case opPut:
		r.grants[e.Grant.Peer] = e.Grant
	case opRemove:
		delete(r.grants, e.Grant.Peer)
		r.forget(e.Grant.Peer)
	case opRotate:
		r.rotate(e)
	case opRetire:
		r.retire(e)
	default:
		return false
	}
	return true
}

// replay rebuilds the list from the log and checks the whole chain.
func replay(tx *store.Tx) (roll, head, error) {
	out := newRoll()
	var at, want head
	damaged := func(why string, seq uint64) error {
		return mesh.Errorf(mesh.Invalid, "the trust log is damaged at entry %d: %s", seq, why).
			WithHint("nobody is trusted on doubt: restore the state file from a backup, or move it away and start with --new-state to build the list anew")
	}
	if _, err := tx.GetJSON(store.Meta, keyHead, &want); err != nil {
		return out, at, err
	}
	err := tx.Each(store.TrustLog, nil, func(k, v []byte) (bool, error) {
		var e entry
		if len(k) != 8 || json.Unmarshal(v, &e) != nil {
			return false, damaged("it cannot be read", at.Seq+1)
		}
		hash, err := e.digest()
		switch {
		case err != nil:
			return false, err
		case e.Seq != at.Seq+1 || binary.BigEndian.Uint64(k) != e.Seq:
			return false, damaged("an entry is missing", at.Seq+1)
		case e.Prev != at.Hash:
			return false, damaged("it does not follow the one before", e.Seq)
		case e.Hash != hash:
			return false, damaged("it was changed", e.Seq)
		}
		at = head{e.Seq, e.Hash}
		e.Grant.Quota = e.Grant.Quota.upgraded() // after its hash was checked
		if !out.apply(e) {
			return false, damaged("its operation is unknown", e.Seq)
		}
		return true, nil
	})
	if err == nil && at != want {
		err = damaged("the end is cut off", at.Seq+1)
	}
	return out, at, err
}

// appendEntry writes an entry behind the one at at.
func appendEntry(tx *store.Tx, at head, e entry) (head, error) {
	e.Seq, e.Prev = at.Seq+1, at.Hash
	hash, err := e.digest()
	if err != nil {
		return at, err
	}
	e.Hash = hash
	next := head{e.Seq, e.Hash}
	if err := tx.PutJSON(store.TrustLog, binary.BigEndian.AppendUint64(nil, e.Seq), e); err != nil {
		return at, err
	}
	return next, tx.PutJSON(store.Meta, keyHead, next)
}

// Head is the end of the trust log: the number of its last entry and that entry's
// hash. Both are zero while the log is empty.
func (l *List) Head() (seq uint64, hash [sha256.Size]byte) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	copy(hash[:], unhex(l.head.Hash))
	return l.head.Seq, hash
}

// Contains reports whether the log holds that entry, which was its head once.
func (l *List) Contains(seq uint64, hash [sha256.Size]byte) (ok bool, err error) {
	if seq == 0 {
		return true, nil
	}
	err = l.store.View(func(tx *store.Tx) error {
		var e entry
		ok, err = tx.GetJSON(store.TrustLog, binary.BigEndian.AppendUint64(nil, seq), &e)
		ok = ok && e.Hash == hex.EncodeToString(hash[:])
		return err
	})
	return ok, err
}

func unhex(s string) []byte {
	b, _ := hex.DecodeString(s) // of our own making, checked by replay
	return b
}
