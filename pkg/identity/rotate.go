package identity

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"peercompute/pkg/mesh"
)

// NextFile is the name of a key that is made but does not count yet.
const NextFile = "node.key.next"

// formerFile is the name of the key that the n-th rotation replaced. It is kept
// while there are peers that know no other.
func formerFile(n uint64) string { return fmt.Sprintf("node.key.was-%d", n) }

// Prepare makes the key that is to replace the one in dir. One that was prepared
// before and never used is dropped.
func Prepare(dir string) (*Key, error) {
	path := filepath.Join(dir, NextFile)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return create(path)
}

// Next reads the key that Prepare made. It fails with fs.ErrNotExist if there is none.
func Next(dir string) (*Key, error) { return load(filepath.Join(dir, NextFile)) }

// Promote puts the prepared key in the place of the present one, which is kept as
// the n-th former one. A crash leaves the one or the other; calling it again then
// finishes it.
func Promote(dir string, n uint64) error {
	present := filepath.Join(dir, KeyFile)
	if err := os.Link(present, filepath.Join(dir, formerFile(n))); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("cannot keep the former node key: %w", err)
	}
	if err := syncDir(dir); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(dir, NextFile), present); err != nil {
		return fmt.Errorf("cannot put the new node key in place: %w", err)
	}
	return syncDir(dir)
}

// Former reads the key that the n-th rotation replaced.
func Former(dir string, n uint64) (*Key, error) { return load(filepath.Join(dir, formerFile(n))) }

// DropFormer deletes it. No error if it is gone already.
func DropFormer(dir string, n uint64) error {
	err := os.Remove(filepath.Join(dir, formerFile(n)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(err, syncDir(dir))
}

// Settle returns the key of the node that the state file belongs to. Where a
// rotation was cut short behind the point of no return, it is finished first.
func Settle(dir string, bound mesh.PeerID, n uint64) (*Key, error) {
	k, err := Load(dir)
	if err != nil || bound == "" || k.ID == bound {
		return k, err
	}
	next, err := Next(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && next.ID != bound {
		return k, nil // not a rotation's doing; the caller sees that they do not fit
	}
	if err != nil {
		return nil, err
	}
	if err := Promote(dir, n); err != nil {
		return nil, err
	}
	return next, nil
}
