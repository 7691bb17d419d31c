package wasm

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"peercompute/pkg/mesh"
)

const (
	maxLine = 4 << 10 // bytes of a log line; a longer one is broken up
	logWait = 20 * time.Millisecond
)

// lineLog sends the lines of a workload's instances to peerd, which keeps them.
// Instances that run at the same time do not tear each other's lines. A guest
// that writes faster than peerd takes it is slowed down, then loses lines.
type lineLog struct {
	mu      sync.Mutex
	c       net.Conn
	torn    bool // the last line was cut off
	dropped int
}

// write sends b, which is one or more whole lines of a stream, each after the
// stream's mark.
func (l *lineLog) write(mark byte, b []byte) {
	marked := make([]byte, 0, len(b)+16)
	for line := range bytes.Lines(b) {
		marked = append(append(marked, mark), line...)
	}
	b = marked
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dropped > 0 {
		if !l.send(fmt.Appendf(nil, "%c[%d lines lost: written too fast]\n", markStderr, l.dropped)) {
			l.dropped += bytes.Count(b, []byte("\n"))
			return
		}
		l.dropped = 0
	}
	if !l.send(b) {
		l.dropped += bytes.Count(b, []byte("\n"))
	}
}

func (l *lineLog) send(b []byte) bool {
	if l.torn {
		b = append([]byte("\n"), b...)
	}
	if err := l.c.SetWriteDeadline(time.Now().Add(logWait)); err != nil {
		return false
	}
	n, err := l.c.Write(b)
	if n > 0 {
		l.torn = n < len(b)
	}
	return err == nil
}

// note adds a line of the driver's own.
func (l *lineLog) note(format string, args ...any) {
	msg := bytes.ReplaceAll(bytes.TrimRight(fmt.Appendf(nil, format, args...), "\n"), []byte("\n"), []byte("\n  "))
	l.write(markStderr, append(append([]byte("[peerd] "), msg...), '\n'))
}

func (l *lineLog) close() { l.c.Close() }

// writer collects the lines that one instance writes to a stream.
func (l *lineLog) writer(s mesh.LogStream) *lineWriter { return &lineWriter{to: l, mark: markOf(s)} }

type lineWriter struct {
	to   *lineLog
	mark byte
	buf  []byte
}

var _ io.Writer = (*lineWriter)(nil)

// Write never fails: a guest must not stumble over its log.
func (w *lineWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		part := p[:min(len(p), maxLine-len(w.buf))]
		p = p[len(part):]
		w.buf = append(w.buf, part...)
		if end := bytes.LastIndexByte(w.buf, '\n') + 1; end > 0 {
			w.to.write(w.mark, w.buf[:end])
			w.buf = append(w.buf[:0], w.buf[end:]...)
		}
		if len(w.buf) == maxLine {
			w.flush()
		}
	}
	return n, nil
}

// flush sends what is left of a line.
func (w *lineWriter) flush() {
	if len(w.buf) > 0 {
		w.to.write(w.mark, append(w.buf, '\n'))
		w.buf = nil
	}
}
