package driver

import (
	"io"
	"time"

	"peercompute/pkg/mesh"
)

// LogOptions selects part of a log.
type LogOptions struct {
	Follow bool           // keep reading until the workload ends or ctx does
	Tail   int            // the last n lines only, of both streams; 0 = all that is kept
	Since  time.Time      // what was written before is left out; zero = nothing is
	Stream mesh.LogStream // one of the two only; empty = both
}

// Shows reports whether an entry is among what the options select.
func (o LogOptions) Shows(e mesh.LogEntry) bool {
	return (o.Stream == "" || o.Stream == e.Stream) && (o.Since.IsZero() || !e.Time.Before(o.Since))
}

// LogReader reads a log entry by entry.
type LogReader interface {
	// Next returns io.EOF at the end. An entry's text is valid until the next call.
	Next() (mesh.LogEntry, error)
	Close() error
}

// PlainLog is the text alone.
func PlainLog(r LogReader) io.ReadCloser { return &plainLog{from: r} }

type plainLog struct {
	from LogReader
	left []byte
}

func (p *plainLog) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	for len(p.left) == 0 {
		e, err := p.from.Next()
		if err != nil {
			return 0, err
		}
		p.left = e.Text
	}
	n := copy(b, p.left)
	p.left = p.left[n:]
	return n, nil
}

func (p *plainLog) Close() error { return p.from.Close() }
