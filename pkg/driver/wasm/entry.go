package wasm

import (
	"bufio"
	"bytes"
	"io"
	"time"

	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
)

// This file is the form of a guest's log. From the worker comes each line after a
// byte for its stream. In the file stands before that byte when the line arrived, by
// peerd's clock, and a space after each. What is not of this form is a line of
// stdout: a worker that lies can tell no more with it than with the text.

const (
	markStdout = 'o'
	markStderr = 'e'
	stampForm  = "2006-01-02T15:04:05.000000000Z"
	stampSize  = len(stampForm) + 1 + 1 + 1 // time, space, stream, space
	// maxStored bounds a line of a file; there may be longer ones from a worker that
	// does not keep to maxLine.
	maxStored = stampSize + 4*maxLine
)

func markOf(s mesh.LogStream) byte {
	if s == mesh.Stderr {
		return markStderr
	}
	return markStdout
}

// stamped appends one line, which need not end in a newline.
func stamped(b []byte, at time.Time, mark byte, line []byte) []byte {
	b = at.UTC().AppendFormat(b, stampForm)
	b = append(b, ' ', mark, ' ')
	b = append(b, line...)
	if len(line) == 0 || line[len(line)-1] != '\n' {
		b = append(b, '\n')
	}
	return b
}

// stamper puts the time before each line that comes from a worker. Each of its writes
// holds whole lines.
type stamper struct {
	to   io.Writer
	now  func() time.Time
	rest []byte // of a line that has not ended
	out  []byte
}

func (s *stamper) Write(p []byte) (int, error) {
	s.out = s.out[:0]
	at := s.now()
	s.rest = append(s.rest, p...)
	for {
		end := bytes.IndexByte(s.rest, '\n') + 1
		if end == 0 && len(s.rest) > maxLine+1 {
			end = maxLine + 1
		}
		if end == 0 {
			break
		}
		s.add(at, s.rest[:end])
		s.rest = append(s.rest[:0], s.rest[end:]...)
	}
	return len(p), s.send()
}

// flush ends a line that was not ended.
func (s *stamper) flush() error {
	s.out = s.out[:0]
	if len(s.rest) > 0 {
		s.add(s.now(), s.rest)
		s.rest = nil
	}
	return s.send()
}

func (s *stamper) add(at time.Time, line []byte) {
	mark := byte(markStdout)
	if m := line[0]; m == markStdout || m == markStderr {
		mark, line = m, line[1:]
	}
	s.out = stamped(s.out, at, mark, line)
}

func (s *stamper) send() error {
	if len(s.out) == 0 {
		return nil
	}
	_, err := s.to.Write(s.out)
	return err
}

// logReader reads the entries of a file.
type logReader struct {
	in   io.ReadCloser
	buf  *bufio.Reader
	show driver.LogOptions
}

var _ driver.LogReader = (*logReader)(nil)

func newLogReader(in io.ReadCloser, o driver.LogOptions) *logReader {
	return &logReader{in: in, buf: bufio.NewReaderSize(in, maxStored), show: o}
}

// Next implements driver.LogReader.
func (r *logReader) Next() (mesh.LogEntry, error) {
	for {
		line, err := r.buf.ReadSlice('\n')
		if len(line) > 0 && (err == nil || err == bufio.ErrBufferFull || err == io.EOF) {
			if e := parseEntry(line); r.show.Shows(e) {
				return e, nil
			}
			continue
		}
		if err != nil {
			return mesh.LogEntry{}, err
		}
	}
}

// Close implements driver.LogReader.
func (r *logReader) Close() error { return r.in.Close() }

// parseEntry takes a line of a file apart.
func parseEntry(line []byte) mesh.LogEntry {
	plain := mesh.LogEntry{Stream: mesh.Stdout, Text: line}
	const mark = len(stampForm) + 1
	if len(line) < stampSize || line[mark-1] != ' ' || line[mark+1] != ' ' {
		return plain
	}
	at, err := time.Parse(stampForm, string(line[:len(stampForm)]))
	if err != nil {
		return plain
	}
	e := mesh.LogEntry{Time: at, Stream: mesh.Stdout, Text: line[stampSize:]}
	switch line[mark] {
	case markStdout:
	case markStderr:
		e.Stream = mesh.Stderr
	default:
		return plain
	}
	return e
}
