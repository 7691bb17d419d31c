package supervisor

import (
	"bytes"
	"encoding/binary"
	"slices"
	"time"

	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

// MaxRevisions is how many revisions of a workload are remembered.
const MaxRevisions = 10

// Revision is one version of a workload that somebody asked for.
type Revision struct {
	Number  int         `json:"number"`
	Spec    mesh.Spec   `json:"spec"`
	By      mesh.PeerID `json:"by"`
	Time    time.Time   `json:"time"`              // when it was asked for
	Digest  string      `json:"digest,omitempty"`  // what really ran, once it is known
	Served  bool        `json:"served,omitempty"`  // it took over
	Failure string      `json:"failure,omitempty"` // why it did not
	Note    string      `json:"note,omitempty"`    // "rollback to 3"
}

func revisionKey(id mesh.WorkloadID, number int) []byte {
	return binary.BigEndian.AppendUint32(append([]byte(id), '/'), uint32(number))
}

// PutRevision writes one revision of a workload down and forgets the oldest beyond
// MaxRevisions, but never the one that serves.
func PutRevision(tx *store.Tx, id mesh.WorkloadID, v Revision, serves int) error {
	if err := tx.PutJSON(store.Revisions, revisionKey(id, v.Number), v); err != nil {
		return err
	}
	all, err := History(tx, id)
	if err != nil {
		return err
	}
	for _, old := range all {
		if len(all) <= MaxRevisions {
			break
		}
		if old.Number == serves || old.Number == v.Number {
			continue
		}
		if err := tx.Delete(store.Revisions, revisionKey(id, old.Number)); err != nil {
			return err
		}
		all = all[1:]
	}
	return nil
}

// History lists what is remembered of a workload's revisions, oldest first.
func History(tx *store.Tx, id mesh.WorkloadID) (out []Revision, err error) {
	prefix := append([]byte(id), '/')
	err = tx.Each(store.Revisions, prefix, func(k, _ []byte) (bool, error) {
		if !bytes.HasPrefix(k, prefix) {
			return false, nil
		}
		var v Revision
		_, err := tx.GetJSON(store.Revisions, k, &v)
		out = append(out, v)
		return true, err
	})
	slices.SortFunc(out, func(a, b Revision) int { return a.Number - b.Number })
	return out, err
}

// editRevision changes what is written of a revision, if anything is.
func editRevision(tx *store.Tx, id mesh.WorkloadID, number int, f func(*Revision)) error {
	var v Revision
	ok, err := tx.GetJSON(store.Revisions, revisionKey(id, number), &v)
	if err != nil || !ok {
		return err
	}
	f(&v)
	return tx.PutJSON(store.Revisions, revisionKey(id, number), v)
}

// ForgetHistory deletes all revisions of a workload.
func ForgetHistory(tx *store.Tx, id mesh.WorkloadID) error {
	all, err := History(tx, id)
	for _, v := range all {
		if err == nil {
			err = tx.Delete(store.Revisions, revisionKey(id, v.Number))
		}
	}
	return err
}
