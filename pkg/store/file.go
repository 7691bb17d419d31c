package store

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"peercompute/pkg/mesh"
)

// summed is the first version whose files carry a sum and a mark.
const summed = 3

// Create makes a new state file, and its mark. It fails with fs.ErrExist if there is
// one that is not empty. A crash leaves the whole file or none.
func Create(path string) error {
	if info, err := os.Lstat(path); err == nil && info.Size() > 0 {
		return fmt.Errorf("%s: %w", path, fs.ErrExist)
	}
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	defer os.Remove(tmp)
	db, err := bolt.Open(tmp, 0o600, options(nil))
	if err != nil {
		return err
	}
	s := &Store{db: db}
	rand.Read(s.incarnation[:])
	txid, err := s.prepare(true)
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	if err := newMark(path, s.incarnation, txid); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// Open opens the state file, creating it where there is none, and locks it against
// other processes. It reads all of it first, and refuses a file that is damaged,
// older than the one that was used last, or of a newer version.
func Open(path string) (*Store, error) { return openAs(path, false) }

// OpenOld is Open for a file that its owner restored from a backup. If it is not the
// latest it gets a new incarnation, which voids all requests signed for it before.
func OpenOld(path string) (*Store, error) { return openAs(path, true) }

func openAs(path string, old bool) (_ *Store, err error) {
	made := false
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		made = true
		if err := Create(path); err != nil {
			return nil, fmt.Errorf("cannot create the state file %s: %w", path, withoutSpace(err))
		}
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open the state file: %w", err)
	}
	s := &Store{queue: make(chan *update), stop: make(chan struct{}), done: make(chan struct{}), failed: make(chan struct{})}
	defer func() {
		if err != nil {
			if s.db != nil {
				s.db.Close()
			}
			f.Close()
			if s.mark != nil {
				s.mark.f.Close()
			}
		}
	}()
	if err := lock(f); err != nil {
		return nil, mesh.Errorf(mesh.Conflict, "the state file %s is in use by another process", path).
			WithHint("is peerd running already with this home?").Because(err)
	}
	damaged := func(err error) error {
		return mesh.Errorf(mesh.Invalid, "the state file %s is damaged or not ours", path).
			WithHint("restore it from a backup, with --old-state; or move it away and start with --new-state").Because(err)
	}
	c, err := read(f)
	if err != nil {
		return nil, damaged(err)
	}
	copy(s.incarnation[:], c.incarnation)
	s.sum.sum = c.sum
	renewed, err := s.latest(path, c, old)
	if err != nil {
		return nil, err
	}
	if s.db, err = bolt.Open(path, 0o600, options(f)); err != nil {
		return nil, damaged(err)
	}
	txid, err := s.prepare(renewed)
	if err != nil {
		var me *mesh.Error
		if errors.As(err, &me) {
			return nil, me
		}
		return nil, fmt.Errorf("cannot prepare the state file %s: %w", path, withoutSpace(err))
	}
	if err := s.mark.set(txid); err != nil {
		return nil, err
	}
	if made {
		s.from = 0
	}
	if err := s.readLife(); err != nil {
		return nil, err
	}
	go s.write()
	return s, nil
}

// options are bbolt's; f is the file where it is open already, and locked.
func options(f *os.File) *bolt.Options {
	o := &bolt.Options{Timeout: time.Second, FreelistType: bolt.FreelistMapType, NoFreelistSync: true}
	if f != nil {
		o.OpenFile = func(string, int, os.FileMode) (*os.File, error) { return f, nil }
	}
	return o
}

// lock waits a moment for a process that is just ending.
func lock(f *os.File) error {
	limit := time.NewTimer(time.Second)
	defer limit.Stop()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		select {
		case <-again.C:
		case <-limit.C:
			return err
		}
	}
}

// read inspects a file and compares it with its sum.
func read(f *os.File) (*reading, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	c, err := inspect(f, info.Size())
	switch {
	case err != nil:
		return nil, err
	case len(c.incarnation) != 0 && len(c.incarnation) != 16:
		return nil, errors.New("its incarnation is malformed")
	case c.want == nil && len(c.version) == 8 && binary.BigEndian.Uint64(c.version) >= summed:
		return nil, errors.New("its sum is missing")
	case c.want != nil && !bytes.Equal(c.want, c.sum[:]):
		return nil, errors.New("what it holds does not add up to what was written")
	}
	return c, nil
}

// latest judges the file by its mark, and opens the mark. It reports whether the file
// needs its incarnation written: because it is new, or old and accepted all the same.
func (s *Store) latest(path string, c *reading, old bool) (renewed bool, err error) {
	if c.incarnation == nil { // nothing was ever written to it
		rand.Read(s.incarnation[:])
		renewed, err = true, newMark(path, s.incarnation, c.txid)
	} else if c.want == nil { // of a version before marks
		if _, missing := os.Lstat(path + MarkSuffix); errors.Is(missing, fs.ErrNotExist) {
			err = newMark(path, s.incarnation, c.txid)
		}
	}
	if err != nil {
		return renewed, err
	}
	s.mark, err = openMark(path, s.incarnation, c.txid)
	if err == nil || !old || !errors.Is(err, errOld) {
		return renewed, err
	}
	s.old = err
	rand.Read(s.incarnation[:])
	if err := newMark(path, s.incarnation, c.txid); err != nil {
		return true, err
	}
	s.mark, err = openMark(path, s.incarnation, c.txid)
	return true, err
}

// Old says why the file is not the latest, if OpenOld opened such a one.
func (s *Store) Old() error { return s.old }

// prepare brings a file up to date: its version, its tables, its incarnation if that
// is renewed, and its sum. Where nothing is to be done it writes nothing, so that a
// node on a full disk can still start. It returns the last transaction.
func (s *Store) prepare(renewed bool) (txid uint64, err error) {
	ready := false
	err = s.db.View(func(tx *bolt.Tx) error {
		txid = uint64(tx.ID())
		meta := tx.Bucket([]byte(Meta))
		ready = !renewed && meta != nil && bytes.Equal(meta.Get(keyVersion), versionNow()) && meta.Get(keySum) != nil && len(meta.Get(keyIncarnation)) == 16
		for _, b := range buckets {
			ready = ready && tx.Bucket([]byte(b)) != nil
		}
		return nil
	})
	if err != nil || ready {
		s.from = Version
		return txid, err
	}
	err = s.db.Update(func(tx *bolt.Tx) error {
		txid = uint64(tx.ID())
		if err := s.init(tx, renewed); err != nil {
			return err
		}
		total, err := sumOf(tx)
		if err != nil {
			return err
		}
		s.sum = *total
		return s.sum.save(tx)
	})
	return txid, err
}

func (s *Store) init(tx *bolt.Tx, renewed bool) error {
	meta := tx.Bucket([]byte(Meta))
	if meta != nil {
		var err error
		if s.from, err = migrate(tx, meta); err != nil {
			return err
		}
		if len(meta.Get(keyIncarnation)) != len(s.incarnation) {
			return mesh.Errorf(mesh.Invalid, "the state file has no incarnation").WithHint("it is damaged; restore it from a backup")
		}
	}
	for _, b := range buckets {
		if _, err := tx.CreateBucketIfNotExists([]byte(b)); err != nil {
			return err
		}
	}
	meta = tx.Bucket([]byte(Meta))
	if renewed {
		if err := meta.Delete(keyLife); err != nil {
			return err
		}
		if err := meta.Put(keyIncarnation, append([]byte(nil), s.incarnation[:]...)); err != nil {
			return err
		}
	}
	return meta.Put(keyVersion, versionNow())
}

func versionNow() []byte { return binary.BigEndian.AppendUint64(nil, uint64(Version)) }

// full reports whether a write failed because the disk is full, and not in a way
// that leaves open what is on it: bbolt writes pages that nothing refers to yet.
func full(err error) bool {
	var failed *fs.PathError
	return errors.As(err, &failed) && failed.Op == "write" && (errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT))
}

// withoutSpace is what to say of such an error.
func withoutSpace(err error) error {
	if !full(err) {
		return err
	}
	return mesh.Errorf(mesh.Overloaded, "the disk that holds this machine's state is full; nothing was changed").WithRule(mesh.RuleDisk).
		WithHint("its owner has to free some space; then try again").Because(err)
}
