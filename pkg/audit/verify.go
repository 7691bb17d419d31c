package audit

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"strconv"

	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

// Report is what a whole chain amounts to.
type Report struct {
	Entries int
	First   uint64 // sequence number of the oldest entry kept; 0 = the log is empty
	Head    Head
}

// checker follows a chain from its oldest entry to its head.
type checker struct {
	Report
	base Head // what the oldest entry follows
	cut  Head // the newest cut that the chain itself tells of
}

func broken(seq uint64, why string) error {
	return mesh.Errorf(mesh.Invalid, "the audit log is broken at entry %d: %s", seq, why).WithRule("audit.chain").
		WithHint("somebody changed this node's state file, or the disk did: compare with an export from before, and with the heads that peers keep")
}

// add takes the next entry: its JSON as it was hashed, and the hash it came with.
func (c *checker) add(data []byte, hash Hash) error {
	e, err := decode(data)
	if err != nil {
		return broken(c.Head.Seq+1, "it cannot be read")
	}
	if c.Entries == 0 && e.Seq > 0 {
		c.First, c.base = e.Seq, Head{e.Seq - 1, e.Prev}
		c.Head = c.base
	}
	switch again, _, err := e.encode(); {
	case e.Seq != c.Head.Seq+1:
		return broken(c.Head.Seq+1, "an entry is missing")
	case e.Prev != c.Head.Hash:
		return broken(e.Seq, "it does not follow the one before")
	case err != nil || !bytes.Equal(again, data) || hashOf(data) != hash:
		return broken(e.Seq, "it was changed")
	}
	if e.Action == actionCut {
		seq, err := strconv.ParseUint(e.Subject, 10, 64)
		if err != nil || c.cut.Hash.UnmarshalText([]byte(e.Detail)) != nil {
			return broken(e.Seq, "it tells of a cut that cannot be read")
		}
		if c.cut.Seq = seq; seq >= e.Seq || e.Seq-seq <= keptAtLeast {
			return broken(e.Seq, "it tells of a cut that the full log had no need for")
		}
	}
	c.Entries++
	c.Head = Head{e.Seq, hash}
	return nil
}

// end says whether what is missing before the oldest entry was dropped by a cut.
func (c *checker) end() error {
	if c.Entries > 0 && c.base != c.cut && (c.base != Head{} || c.cut != Head{}) {
		return broken(c.First, "what came before it is missing, and no cut tells of it")
	}
	return nil
}

// Verify checks the whole chain of the node's log.
func (l *Log) Verify() (Report, error) {
	var c checker
	err := l.cfg.Store.View(func(tx *store.Tx) error {
		want, err := readHead(tx)
		if err != nil {
			return err
		}
		err = tx.Each(store.Audit, nil, func(k, v []byte) (bool, error) {
			if len(k) != 8 || len(v) < sha256.Size {
				return false, broken(c.Head.Seq+1, "it cannot be read")
			}
			if c.Entries > 0 && binary.BigEndian.Uint64(k) != c.Head.Seq+1 {
				return false, broken(c.Head.Seq+1, "an entry is missing")
			}
			return true, c.add(v[sha256.Size:], Hash(v[:sha256.Size]))
		})
		if err == nil && c.Head != want {
			err = broken(c.Head.Seq+1, "the end is cut off")
		}
		return err
	})
	if err == nil {
		err = c.end()
	}
	return c.Report, err
}

const maxLine = 16 << 10 // bytes of one exported entry

// VerifyExport checks a chain that was exported: one Line of JSON after the other.
// That the end is not cut off only its head can tell, which is in the report.
func VerifyExport(r io.Reader) (Report, error) {
	var c checker
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 0, 4<<10), maxLine)
	for in.Scan() {
		if len(bytes.TrimSpace(in.Bytes())) == 0 {
			continue
		}
		var l Line
		dec := json.NewDecoder(bytes.NewReader(in.Bytes()))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&l); err != nil || dec.More() {
			return c.Report, broken(c.Head.Seq+1, "it cannot be read")
		}
		data, _, err := l.Entry.encode()
		if err != nil {
			return c.Report, err
		}
		if err := c.add(data, l.Hash); err != nil {
			return c.Report, err
		}
	}
	if errors.Is(in.Err(), bufio.ErrTooLong) {
		return c.Report, broken(c.Head.Seq+1, "it is too long to be one")
	}
	if in.Err() != nil {
		return c.Report, in.Err()
	}
	return c.Report, c.end()
}
