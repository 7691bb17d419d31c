package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"peercompute/pkg/mesh"
)

// A mark lies beside the state file and says which transaction was the last. A
// state file that is older than its mark was rolled back: peers removed since then
// would be trusted again, and requests carried out since then would run again.
//
// The mark is written after each commit and before it is acknowledged, without an
// fsync of its own: it survives the process, and after a power loss it may lag
// behind the file, never run ahead of it.

// MarkSuffix makes the name of a state file's mark.
const MarkSuffix = ".mark"

const (
	markMagic = "pcmark1\n"
	markSize  = len(markMagic) + 16 + 8 + 4 // incarnation, transaction, CRC-32C
)

type mark struct {
	f           *os.File
	incarnation [16]byte
}

func (m *mark) encode(txid uint64) []byte {
	b := append([]byte(markMagic), m.incarnation[:]...)
	b = binary.BigEndian.AppendUint64(b, txid)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

// set records that a transaction is committed.
func (m *mark) set(txid uint64) error {
	_, err := m.f.WriteAt(m.encode(txid), 0)
	return err
}

func (m *mark) close() error { return errors.Join(m.f.Sync(), m.f.Close()) }

// newMark replaces the mark of a state file, durably.
func newMark(path string, incarnation [16]byte, txid uint64) error {
	m := mark{incarnation: incarnation}
	return replaceFile(path+MarkSuffix, m.encode(txid))
}

// openMark opens a mark and judges the state file by it.
func openMark(path string, incarnation [16]byte, txid uint64) (*mark, error) {
	f, err := os.OpenFile(path+MarkSuffix, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, oldState("its mark %s is missing, so nobody knows whether %s is the latest", path+MarkSuffix, path)
	}
	if err != nil {
		return nil, err
	}
	m := &mark{f, incarnation}
	b, err := io.ReadAll(io.LimitReader(f, int64(markSize)+1))
	switch at := len(markMagic); {
	case err != nil:
	case len(b) != markSize || !bytes.Equal(b, (&mark{incarnation: [16]byte(b[at : at+16])}).encode(binary.BigEndian.Uint64(b[at+16:]))):
		err = oldState("its mark %s is damaged, so nobody knows whether %s is the latest", path+MarkSuffix, path)
	case [16]byte(b[at:at+16]) != incarnation:
		err = oldState("its mark %s belongs to another state file than %s", path+MarkSuffix, path)
	case binary.BigEndian.Uint64(b[at+16:]) > txid:
		err = oldState("%s is older than the last one that was used here, by %d changes", path, binary.BigEndian.Uint64(b[at+16:])-txid)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return m, nil
}

// errOld marks the errors that OpenOld makes no error of.
var errOld = errors.New("not the latest state")

func oldState(format string, args ...any) error {
	return mesh.Errorf(mesh.Invalid, "the state may have been rolled back: "+format, args...).WithRule("state.latest").
		WithHint("peers that were removed since would be trusted again: put back the latest state file and its mark; or, if an older one was restored on purpose, start once with --old-state and then look through: peerctl peers ls").
		Because(errOld)
}

// replaceFile writes a small file so that a crash leaves the old one or the new one.
func replaceFile(path string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(data)
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
