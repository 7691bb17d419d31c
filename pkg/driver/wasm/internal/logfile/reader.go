package logfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// Read opens the log at path for reading, from its last tail lines (0 = all that
// is kept). live is the Log that is being written there, or nil. Read fails with
// fs.ErrNotExist if there is no log.
func Read(ctx context.Context, path string, tail int, live *Log) (io.ReadCloser, error) {
	return open(&reader{ctx: ctx, path: path}, tail, live)
}

// Follow is Read, but goes on with what is written, until live or ctx ends.
func Follow(ctx context.Context, path string, tail int, live *Log) (io.ReadCloser, error) {
	return open(&reader{ctx: ctx, path: path, live: live}, tail, live)
}

func open(r *reader, tail int, live *Log) (io.ReadCloser, error) {
	path := r.path
	if live != nil {
		// Held while both files are opened, so that no turn-over comes between.
		live.mu.Lock()
		defer live.mu.Unlock()
		r.generation = live.generation
	}
	old, err := os.Open(path + ".1")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot read a log: %w", err)
	}
	current, err := os.Open(path)
	if err != nil {
		if old != nil {
			old.Close()
		}
		return nil, fmt.Errorf("cannot read a log: %w", err)
	}
	if old != nil {
		r.files = append(r.files, old)
	}
	r.files = append(r.files, current)
	if tail > 0 {
		if err := r.skipTo(tail); err != nil {
			r.Close()
			return nil, err
		}
	}
	return r, nil
}

type reader struct {
	ctx        context.Context // a reader lives as long as the call that made it
	path       string
	live       *Log       // nil: do not follow
	generation int        // of the last file in files
	files      []*os.File // what is still to be read, in order
}

// skipTo moves to the beginning of the last tail lines.
func (r *reader) skipTo(tail int) error {
	for i := len(r.files) - 1; i >= 0; i-- {
		at, found, err := lastLines(r.files[i], tail)
		if err != nil {
			return fmt.Errorf("cannot read a log: %w", err)
		}
		if found < tail && i > 0 {
			tail -= found
			continue
		}
		for _, f := range r.files[:i] {
			f.Close()
		}
		r.files = r.files[i:]
		_, err = r.files[0].Seek(at, io.SeekStart)
		return err
	}
	return nil
}

// lastLines finds where the last n lines of f begin, and how many there were.
func lastLines(f *os.File, n int) (at int64, found int, err error) {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, 0, err
	}
	buf := make([]byte, 32<<10)
	for at = end; at > 0; {
		size := min(int64(len(buf)), at)
		at -= size
		if _, err := f.ReadAt(buf[:size], at); err != nil && err != io.EOF {
			return 0, 0, err
		}
		for i := size; i > 0; {
			j := int64(bytes.LastIndexByte(buf[:i], '\n'))
			if j < 0 {
				break
			}
			if at+j+1 < end { // a line begins after it
				if found++; found == n {
					_, err := f.Seek(0, io.SeekStart)
					return at + j + 1, found, err
				}
			}
			i = j
		}
	}
	if end > 0 {
		found++
	}
	_, err = f.Seek(0, io.SeekStart)
	return 0, found, err
}

func (r *reader) Read(p []byte) (int, error) {
	for {
		if len(r.files) == 0 {
			return 0, io.EOF
		}
		// Learnt before reading: what is written after shows as a change.
		generation, ended, changed := r.generation, true, (<-chan struct{})(nil)
		if r.live != nil {
			generation, ended, changed = r.live.state()
		}
		n, err := r.files[0].Read(p)
		if n > 0 || err != nil && err != io.EOF {
			return n, err
		}
		switch {
		case len(r.files) > 1:
			r.drop()
		case generation != r.generation:
			// The file was turned over and is read to its end; go on with the
			// current one. If it was turned over twice, what was between is lost.
			f, now, err := r.live.reopen()
			if err != nil {
				return 0, err
			}
			r.files = append(r.files, f)
			r.generation = now
			r.drop()
		case ended:
			return 0, io.EOF
		default:
			select {
			case <-changed:
			case <-r.ctx.Done():
				return 0, io.EOF // the caller has read enough
			}
		}
	}
}

func (r *reader) drop() {
	r.files[0].Close()
	r.files = r.files[1:]
}

func (r *reader) Close() error {
	for _, f := range r.files {
		f.Close()
	}
	r.files = nil
	return nil
}
