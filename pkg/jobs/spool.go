package jobs

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"

	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

// smallOutput is how much of an output is kept in the state file, in bytes; what is
// larger gets a file of its own.
const smallOutput = 32 << 10

// part is one of the things that a job leaves.
type part string

const (
	partOutput part = "out"
	partLog    part = "log"
	partRecord part = "rec"
)

var parts = [...]part{partOutput, partLog, partRecord}

func outputKey(id mesh.WorkloadID, p part) []byte { return []byte(string(id) + "." + string(p)) }

func (q *Queue) outputFile(id mesh.WorkloadID, p part) string {
	return filepath.Join(q.cfg.Dir, string(id)+"."+string(p))
}

var errOutput = errors.New("it wrote more than is kept")

// spool takes what a running job writes, and lets others read it meanwhile: from
// memory while it is small, then from a file.
type spool struct {
	path  string // of the file, once there is one
	limit int64  // bytes
	over  func() // called once when the limit is reached

	mu      sync.Mutex
	small   []byte
	f       *os.File // nil while it is small
	size    int64
	failed  error
	ended   bool
	changed chan struct{} // closed when there is more
}

func newSpool(path string, limit int64, over func()) *spool {
	return &spool{path: path, limit: limit, over: over, changed: make(chan struct{})}
}

// Write implements io.Writer.
func (s *spool) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return 0, s.failed
	}
	if s.size+int64(len(p)) > s.limit {
		s.failed = errOutput
		s.over()
		return 0, s.failed
	}
	if s.f == nil && s.size+int64(len(p)) > smallOutput {
		f, err := os.OpenFile(s.path, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
		if err == nil {
			s.f = f
			_, err = f.Write(s.small)
		}
		if err != nil {
			s.failed = err
			s.over()
			return 0, err
		}
		s.small = nil
	}
	if s.f != nil {
		if _, err := s.f.Write(p); err != nil {
			s.failed = err
			s.over()
			return 0, err
		}
	} else {
		s.small = append(s.small, p...)
	}
	s.size += int64(len(p))
	close(s.changed)
	s.changed = make(chan struct{})
	return len(p), nil
}

// end says that no more is written. It makes a file durable and returns what was
// written if there is no file.
func (s *spool) end() (small []byte, stored Stored, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.f != nil {
		err = s.f.Sync()
	}
	if s.failed != nil && !errors.Is(s.failed, errOutput) {
		err = errors.Join(err, s.failed)
	}
	return s.small, Stored{Size: s.size, File: s.f != nil}, err
}

// peek is how much there is so far.
func (s *spool) peek() Stored {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stored{Size: s.size, File: s.f != nil}
}

// close ends readers that follow, and lets go of the file.
func (s *spool) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.ended = true
	close(s.changed)
	s.changed = make(chan struct{})
}

// release closes the file, once nobody reads from here any more.
func (s *spool) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.f != nil {
		s.f.Close()
	}
}

// read is ReadAt with the rule that it waits for more unless the end is reached.
func (s *spool) read(ctx context.Context, p []byte, at int64, follow bool) (int, error) {
	for {
		s.mu.Lock()
		n, err := 0, error(nil)
		if at < s.size {
			if s.f != nil {
				n, err = s.f.ReadAt(p[:min(int64(len(p)), s.size-at)], at)
			} else {
				n = copy(p, s.small[at:])
			}
		}
		ended, changed := s.ended, s.changed
		s.mu.Unlock()
		if n > 0 || err != nil && err != io.EOF {
			return n, err
		}
		if ended || !follow {
			return 0, io.EOF
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// spoolReader reads a spool from its beginning.
type spoolReader struct {
	ctx    context.Context //nolint:containedctx // a reader has no other way to be told
	s      *spool
	at     int64
	follow bool
	done   func()
}

func (r *spoolReader) Read(p []byte) (int, error) {
	n, err := r.s.read(r.ctx, p, r.at, r.follow)
	r.at += int64(n)
	return n, err
}

func (r *spoolReader) Close() error {
	r.done()
	return nil
}

// syncDir makes the names of new files durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// tidy removes the files of what neither runs nor is a finished job with outputs: of
// runs that a crash cut short, and of jobs whose outputs went.
func (q *Queue) tidy() error {
	// In this order: a run's file that is seen here is either still the run's, or
	// recorded before the run was over.
	entries, err := os.ReadDir(q.cfg.Dir)
	if err != nil {
		return err
	}
	keep := map[string]bool{}
	q.mu.Lock()
	for id := range q.live {
		for _, p := range parts {
			keep[filepath.Base(q.outputFile(id, p))] = true
		}
	}
	q.mu.Unlock()
	err = q.cfg.Store.View(func(tx *store.Tx) error {
		return Each(tx, func(j Job) error {
			if j.State != Done || j.Dropped {
				return nil
			}
			for p, s := range map[part]Stored{partOutput: j.Output, partLog: j.Log, partRecord: j.Record} {
				if s.File {
					keep[filepath.Base(q.outputFile(j.ID, p))] = true
				}
			}
			return nil
		})
	})
	for _, e := range entries {
		if err == nil && !e.IsDir() && !keep[e.Name()] {
			err = os.Remove(filepath.Join(q.cfg.Dir, e.Name()))
		}
	}
	return err
}
