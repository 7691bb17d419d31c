package member

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"peercompute/pkg/audit"
	"peercompute/pkg/backup"
	"peercompute/pkg/identity"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
	"peercompute/pkg/trust"
)

// This file makes a home from a backup. While it is at work a marker lies in the
// home: with it Open refuses the home, and Restore may begin again.

// unfinished is the marker's name.
const unfinished = "restore.unfinished"

const lockFile = "lock"

// Restored says what a restore brought back.
type Restored struct {
	Node  mesh.PeerID
	Role  string
	Made  time.Time // when the backup was made
	Peers int
}

// Restore fills a home that is empty or not there from a backup. The state file is a
// new one, so whatever was signed for the former is void. If it fails nothing is left.
func Restore(ctx context.Context, home string, data []byte, passphrase string, now func() time.Time) (out Restored, err error) {
	c, key, err := backup.Open(data, passphrase)
	if err != nil {
		return out, err
	}
	defer clear(c.Key)
	_, err = os.Lstat(home)
	made := errors.Is(err, fs.ErrNotExist)
	if err := os.MkdirAll(home, 0o700); err != nil {
		return out, mesh.Errorf(mesh.Invalid, "cannot create the home directory").Because(err)
	}
	if err := emptyHome(home); err != nil {
		return out, err
	}
	if err := checkHome(home); err != nil {
		return out, err
	}
	unlock, err := lockHome(home)
	if err != nil {
		return out, err
	}
	defer func() {
		if err != nil {
			left := wipe(home) // the marker goes last
			if left == nil {
				left = errors.Join(remove(home, unfinished), remove(home, lockFile))
			}
			if left == nil && made {
				left = os.Remove(home)
			}
			err = errors.Join(err, left)
		}
		err = errors.Join(err, unlock())
	}()
	if err := begin(home); err != nil {
		return out, err
	}
	if err := fill(ctx, home, c, key, now); err != nil {
		return out, err
	}
	if err := os.Remove(filepath.Join(home, unfinished)); err != nil {
		return out, err
	}
	return Restored{Node: key.ID, Role: c.Role, Made: c.Made, Peers: len(c.Trust.Grants)}, syncDir(home)
}

// emptyHome refuses a home that holds anything but what an earlier restore left.
func emptyHome(home string) error {
	entries, err := os.ReadDir(home)
	if err != nil {
		return err
	}
	_, err = os.Lstat(filepath.Join(home, unfinished))
	again := err == nil
	for _, e := range entries {
		switch {
		case e.Name() == lockFile, e.Name() == unfinished:
		case again && ours(e.Name()):
		default:
			return mesh.Errorf(mesh.Conflict, "the home %s is not empty: it holds %s", home, e.Name()).WithRule("restore.empty").
				WithHint("name one that is empty or not there: --home DIR")
		}
	}
	return nil
}

// ours are the files that a restore makes, also half of them.
func ours(name string) bool {
	for _, pattern := range []string{identity.KeyFile, store.FileName, store.FileName + ".*", ".key-*", "." + store.FileName + "*"} {
		if ok, _ := filepath.Match(pattern, name); ok {
			return true
		}
	}
	return false
}

// wipe removes them.
func wipe(home string) error {
	entries, err := os.ReadDir(home)
	for _, e := range entries {
		if ours(e.Name()) {
			err = errors.Join(err, os.Remove(filepath.Join(home, e.Name())))
		}
	}
	return err
}

func remove(home, name string) error {
	err := os.Remove(filepath.Join(home, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// begin puts the marker in place, durably, and removes what an earlier try left.
func begin(home string) error {
	f, err := os.OpenFile(filepath.Join(home, unfinished), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close(), syncDir(home), syncDir(filepath.Dir(home))); err != nil {
		return err
	}
	return wipe(home)
}

func fill(ctx context.Context, home string, c *backup.Content, key *identity.Key, now func() time.Time) (err error) {
	path := filepath.Join(home, store.FileName)
	if err := store.Create(path); err != nil {
		return err
	}
	st, err := store.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	if err := st.Bind(ctx, key.ID); err != nil {
		return err
	}
	list, err := trust.Open(st, key.ID, now)
	if err != nil {
		return err
	}
	err = list.Restore(ctx, c.Trust, func(tx *store.Tx) error {
		for _, ch := range c.Changes {
			// The keys before are not in the backup, so nobody is told under them. Peers ask.
			err := keyChange{
				Seq: ch.Seq, Old: ch.Old, New: ch.New, Step: ch.Step, Began: ch.Began, Until: ch.Until, Compromised: ch.Compromised,
				Switched: true, Closed: true,
			}.put(tx)
			if err != nil {
				return err
			}
		}
		return audit.Append(tx, audit.Entry{
			Time: now(), Actor: audit.Local, Action: "identity.restore", Outcome: audit.Done, Detail: "from a backup of " + c.Made.UTC().Format(time.RFC3339),
		})
	})
	if err != nil {
		return err
	}
	return key.Save(home) // last: without it no program takes the state for a node's
}

// checkFinished refuses a home that a restore was cut short in.
func checkFinished(home string) error {
	_, err := os.Lstat(filepath.Join(home, unfinished))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return mesh.Errorf(mesh.Invalid, "a restore into the home %s was cut short", home).WithRule("restore.unfinished").
		WithHint("run it again: peerd restore FILE --home %s", home)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
