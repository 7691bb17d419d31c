// Package volume keeps volumes: each is a file of a fixed size with an ext4 file
// system in it. It makes and removes them, attaches them to loop devices, and turns
// their files into an archive and back. It never mounts one where a path leads to it,
// and never reads a file system that somebody else made.
package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"peercompute/pkg/mesh"
)

const (
	suffix  = ".img"
	partial = ".new" // ends the name of one that is being made
)

// Store is a directory of volumes.
type Store struct {
	dir      string
	patience time.Duration

	mu   sync.Mutex
	busy map[mesh.VolumeID]bool // somebody here is at it
}

// New returns the store of a directory, which is made when it is needed.
func New(dir string) *Store {
	return &Store{dir: dir, patience: patience, busy: map[mesh.VolumeID]bool{}}
}

func (s *Store) path(id mesh.VolumeID) string { return filepath.Join(s.dir, string(id)+suffix) }

// How long a volume may be busy before whoever wants it is told so. A file system that
// was let go of takes a moment to be gone.
const (
	patience  = 3 * time.Second
	lookAgain = 20 * time.Millisecond
)

func errBusy() error {
	return mesh.Errorf(mesh.Unavailable, "the volume is in use").WithRule("volume.in-use")
}

// take makes the caller the only one who is at a volume. It waits a moment for those
// who are just leaving.
func (s *Store) take(ctx context.Context, id mesh.VolumeID) (release func(), err error) {
	if _, err := mesh.ParseVolumeID(string(id)); err != nil {
		return nil, err
	}
	for enough := time.Now().Add(s.patience); ; {
		attached, err := s.attached(id)
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		free := !attached && !s.busy[id]
		if free {
			s.busy[id] = true
		}
		s.mu.Unlock()
		if free {
			return sync.OnceFunc(func() {
				s.mu.Lock()
				delete(s.busy, id)
				s.mu.Unlock()
			}), nil
		}
		if time.Now().After(enough) {
			return nil, errBusy()
		}
		timer := time.NewTimer(lookAgain)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		}
	}
}

// Make makes a volume of so many bytes, all of which are taken from the disk at once.
// Its files are to be owner's. One that is there already is left as it is.
func (s *Store) Make(ctx context.Context, id mesh.VolumeID, size int64, owner uint32) error {
	release, err := s.take(ctx, id)
	if err != nil {
		return err
	}
	defer release()
	if st, err := os.Stat(s.path(id)); err == nil {
		if st.Size() != size {
			return mesh.Errorf(mesh.Internal, "the volume has %d bytes on disk, not %d", st.Size(), size)
		}
		return nil
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("cannot make the directory of volumes: %w", err)
	}
	file := s.path(id) + partial
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.format(ctx, file, size, owner); err != nil {
		return errors.Join(err, os.Remove(file))
	}
	if err := os.Rename(file, s.path(id)); err != nil {
		return err
	}
	return syncDir(s.dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Remove removes a volume and all that is in it; mesh.Unavailable while it is in use.
// No error if there is none.
func (s *Store) Remove(ctx context.Context, id mesh.VolumeID) error {
	release, err := s.take(ctx, id)
	if err != nil {
		return err
	}
	defer release()
	gone := false
	for _, file := range []string{s.path(id), s.path(id) + partial} {
		switch err := os.Remove(file); {
		case err == nil:
			gone = true
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	if gone {
		return syncDir(s.dir)
	}
	return nil
}

// Has reports whether a volume is there.
func (s *Store) Has(id mesh.VolumeID) bool {
	_, err := os.Stat(s.path(id))
	return err == nil
}

// Files lists the volumes of the directory with the bytes of their files, whoever made them.
func (s *Store) Files() (map[mesh.VolumeID]int64, error) {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	out := map[mesh.VolumeID]int64{}
	for _, e := range entries {
		id, ok := volumeOf(e.Name())
		if info, err := e.Info(); ok && err == nil {
			out[id] = info.Size()
		}
	}
	return out, err
}

// Path is the file of a volume.
func (s *Store) Path(id mesh.VolumeID) string { return s.path(id) }

// Sweep removes what was left of volumes whose making a crash cut short. Nobody may be
// making one meanwhile.
func (s *Store) Sweep() error {
	files, err := filepath.Glob(filepath.Join(s.dir, "*"+suffix+partial))
	for _, f := range files {
		if rerr := os.Remove(f); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	return err
}

// of is the volume that a path names, if it names one of this store.
func (s *Store) of(path string) (mesh.VolumeID, bool) {
	dir, err := filepath.EvalSymlinks(s.dir)
	if err != nil || filepath.Dir(path) != dir {
		return "", false
	}
	return volumeOf(filepath.Base(path))
}

// volumeOf is the volume whose file has this name.
func volumeOf(file string) (mesh.VolumeID, bool) {
	name, ok := strings.CutSuffix(file, suffix)
	id, err := mesh.ParseVolumeID(name)
	return id, ok && err == nil
}
