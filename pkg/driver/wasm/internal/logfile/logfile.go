// Package logfile keeps the log of one workload in at most two files of bounded
// size, and reads it back while it grows.
package logfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
)

// Log is an io.Writer that keeps the last of what was written: between one and
// two times its size. When the file is full it becomes PATH.1, replacing the one
// before. Several goroutines may write; each Write stays in one piece.
type Log struct {
	path string
	size int64

	mu         sync.Mutex
	f          *os.File // nil once closed
	n          int64    // bytes in f
	generation int      // how many times the file was turned over
	changed    chan struct{}
}

// Open starts the log at path, after whatever an earlier run left there. size is
// the bound of one file in bytes.
func Open(path string, size int64) (*Log, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot open a log: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot open a log: %w", err)
	}
	return &Log{path: path, size: size, f: f, n: st.Size(), changed: make(chan struct{})}, nil
}

// Write appends p, of which at most the size of one file is kept.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return 0, fs.ErrClosed
	}
	keep := p
	if int64(len(keep)) > l.size {
		keep = keep[int64(len(keep))-l.size:]
	}
	if l.n > 0 && l.n+int64(len(keep)) > l.size {
		if err := l.turnOver(); err != nil {
			return 0, err
		}
	}
	n, err := l.f.Write(keep)
	l.n += int64(n)
	close(l.changed)
	l.changed = make(chan struct{})
	if err != nil {
		return 0, fmt.Errorf("cannot write a log: %w", err)
	}
	return len(p), nil
}

// turnOver makes the full file the old one. l.mu is held.
func (l *Log) turnOver() error {
	f, err := os.OpenFile(l.path+".new", os.O_WRONLY|os.O_APPEND|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("cannot turn a log over: %w", err)
	}
	err = os.Rename(l.path, l.path+".1")
	if err == nil {
		err = os.Rename(l.path+".new", l.path)
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("cannot turn a log over: %w", err)
	}
	l.f.Close()
	l.f, l.n = f, 0
	l.generation++
	return nil
}

// Close ends the log: followers see its end.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return nil
	}
	err := l.f.Close()
	l.f = nil
	close(l.changed)
	return err
}

// state is what a follower needs to know: whether the log has ended, and a
// channel that is closed at the next change.
func (l *Log) state() (generation int, ended bool, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.generation, l.f == nil, l.changed
}

// reopen opens the current file for a follower that has read an older one.
func (l *Log) reopen() (*os.File, int, error) {
	l.mu.Lock() // not between the two renames of a turn-over
	defer l.mu.Unlock()
	f, err := os.Open(l.path)
	return f, l.generation, err
}

// Remove deletes both files of the log at path. It is no error if there are none.
func Remove(path string) error {
	var errs []error
	for _, p := range []string{path, path + ".1", path + ".new"} {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
