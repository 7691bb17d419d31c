// Package blob keeps bytes on disk by their digest: modules, the inputs of jobs and
// what runs observed. A file is complete if it is there at all, is never changed,
// and all files together are bounded: the ones that were used longest ago go first.
// It knows nothing of whom they belong to.
package blob

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"peercompute/pkg/mesh"
)

// Config is what Open needs.
type Config struct {
	Dir  string // made if it is not there; all in it is this store's
	Noun string // what is kept, for messages and rules: "module"
	Ext  string // of the files: ".wasm"
	One  int64  // bytes of one blob at most
	Max  int64  // bytes of all together at most
	// Loose blobs are not written through to the disk: a power cut may lose or tear
	// one. Whoever reads it must hold it against its digest.
	Loose bool
	Hint  string // what to do about one that is not here
}

// Store is a directory of blobs. Its methods may be called from many goroutines.
type Store struct {
	cfg Config

	mu sync.Mutex // one change at a time
}

const upload = ".upload-" // begins the name of a file that is being written

// Open opens a store and removes what an interrupted write left.
func Open(cfg Config) (*Store, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	stale, err := filepath.Glob(filepath.Join(cfg.Dir, upload+"*"))
	for _, f := range stale {
		err = errors.Join(err, os.Remove(f))
	}
	return &Store{cfg: cfg}, err
}

func (s *Store) file(digest string) (string, error) {
	if !mesh.ValidDigest(digest) {
		return "", mesh.Errorf(mesh.Invalid, "%q is not a digest", digest)
	}
	return filepath.Join(s.cfg.Dir, digest[len("sha256:"):]+s.cfg.Ext), nil
}

// Path is the file of a blob; mesh.NotFound if it is not here.
func (s *Store) Path(digest string) (string, error) {
	path, err := s.file(digest)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err != nil {
		return "", mesh.Errorf(mesh.NotFound, "the %s %s is not here", s.cfg.Noun, digest).WithRule(s.cfg.Noun+".missing").WithHint("%s", s.cfg.Hint)
	}
	return path, nil
}

// Open opens a blob, which counts as use.
func (s *Store) Open(digest string) (*os.File, error) {
	path, err := s.Path(digest)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	_ = os.Chtimes(path, now, now) // only its place in the order of removal
	return os.Open(path)
}

// Put stores what r gives. With a wanted digest, anything else is refused. inUse
// says which digests may not be dropped for room; nil = all may.
func (s *Store) Put(ctx context.Context, r io.Reader, wanted string, inUse func() (map[string]bool, error)) (digest string, size int64, err error) {
	w, err := s.Create()
	if err != nil {
		return "", 0, err
	}
	defer w.Discard()
	if _, err := io.Copy(w, r); err != nil {
		if mesh.KindOf(err) == mesh.TooLarge {
			return "", w.size, err
		}
		return "", w.size, fmt.Errorf("cannot receive the %s: %w", s.cfg.Noun, err)
	}
	if wanted != "" && w.Digest() != wanted {
		return "", w.size, mesh.Errorf(mesh.Forged, "the %s's bytes do not match its digest", s.cfg.Noun).WithRule(s.cfg.Noun + ".digest")
	}
	return w.Keep(ctx, inUse)
}

// Writer is a blob that is being written. Discard must be called in the end; after
// Keep it does nothing.
type Writer struct {
	s    *Store
	tmp  *os.File
	sum  interface{ Sum([]byte) []byte }
	w    io.Writer
	size int64
}

// Create begins a blob.
func (s *Store) Create() (*Writer, error) {
	tmp, err := os.CreateTemp(s.cfg.Dir, upload+"*")
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	return &Writer{s: s, tmp: tmp, sum: h, w: io.MultiWriter(tmp, h)}, nil
}

// Write adds bytes; mesh.TooLarge once there are more than one blob may have.
func (w *Writer) Write(p []byte) (int, error) {
	if max := w.s.cfg.One; w.size+int64(len(p)) > max {
		return 0, mesh.Errorf(mesh.TooLarge, "the %s is over %d MiB", w.s.cfg.Noun, max>>20).WithRule("host." + w.s.cfg.Noun + "-size")
	}
	n, err := w.w.Write(p)
	w.size += int64(n)
	return n, err
}

// Digest is that of what was written.
func (w *Writer) Digest() string { return "sha256:" + hex.EncodeToString(w.sum.Sum(nil)) }

// Size is how much was written, in bytes.
func (w *Writer) Size() int64 { return w.size }

// Section reads the first n bytes of what was written, also while it is not kept.
func (w *Writer) Section(n int64) io.Reader { return io.NewSectionReader(w.tmp, 0, min(n, w.size)) }

// Keep makes the blob durable under its digest.
func (w *Writer) Keep(ctx context.Context, inUse func() (map[string]bool, error)) (digest string, size int64, err error) {
	digest = w.Digest()
	path, err := w.s.file(digest)
	if err != nil {
		return "", w.size, err
	}
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return "", w.size, err
	}
	if _, err := os.Stat(path); err == nil { // the same bytes are there
		now := time.Now()
		return digest, w.size, os.Chtimes(path, now, now)
	}
	if err := w.s.makeRoom(w.size, inUse); err != nil {
		return "", w.size, err
	}
	if w.s.cfg.Loose {
		return digest, w.size, os.Rename(w.tmp.Name(), path)
	}
	if err := errors.Join(w.tmp.Sync(), os.Rename(w.tmp.Name(), path), syncDir(w.s.cfg.Dir)); err != nil {
		return "", w.size, err
	}
	return digest, w.size, nil
}

// Discard lets go of what was not kept.
func (w *Writer) Discard() {
	w.tmp.Close()
	os.Remove(w.tmp.Name()) // not there any more if it was kept
}

// Remove drops a blob; one that is not there is no error.
func (s *Store) Remove(digest string) error {
	path, err := s.file(digest)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// makeRoom drops blobs that nothing uses, oldest first, until size more fit.
func (s *Store) makeRoom(size int64, inUse func() (map[string]bool, error)) error {
	entries, err := os.ReadDir(s.cfg.Dir)
	if err != nil {
		return err
	}
	total := size
	type file struct {
		name string
		info os.FileInfo
	}
	var files []file
	for _, e := range entries {
		if info, err := e.Info(); err == nil && filepath.Ext(e.Name()) == s.cfg.Ext && !strings.HasPrefix(e.Name(), upload) {
			total += info.Size()
			files = append(files, file{e.Name(), info})
		}
	}
	if total <= s.cfg.Max {
		return nil
	}
	used := map[string]bool{}
	if inUse != nil {
		if used, err = inUse(); err != nil {
			return err
		}
	}
	for total > s.cfg.Max {
		oldest := -1
		for i, f := range files {
			digest := "sha256:" + strings.TrimSuffix(f.name, s.cfg.Ext)
			if !used[digest] && (oldest < 0 || f.info.ModTime().Before(files[oldest].info.ModTime())) {
				oldest = i
			}
		}
		if oldest < 0 {
			return mesh.Errorf(mesh.Quota, "there is no room for more %ss here: %d MiB are in use", s.cfg.Noun, s.cfg.Max>>20).WithRule("host." + s.cfg.Noun + "s")
		}
		if err := os.Remove(filepath.Join(s.cfg.Dir, files[oldest].name)); err != nil {
			return err
		}
		total -= files[oldest].info.Size()
		files = append(files[:oldest], files[oldest+1:]...)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
