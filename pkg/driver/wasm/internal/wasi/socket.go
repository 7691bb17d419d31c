package wasi

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"peercompute/pkg/driver/wasm/internal/errno"
)

// A guest's sockets are no sockets of the system: a worker has none to give. They
// are pairs of buffers in memory, and whoever connects holds the other end.

// Listener is where a guest is connected to. Its methods, but for those that Guest
// calls, may be called from any goroutine.
type Listener struct {
	backlog int
	seen    atomic.Int64 // when the guest last looked, Unix ns
	ready   chan struct{}
	once    sync.Once

	mu     sync.Mutex
	queue  []*Conn
	closed bool
	wake   chan<- struct{}
}

// NewListener makes a listener that holds that many connections not accepted yet.
func NewListener(backlog int) *Listener {
	return &Listener{backlog: backlog, ready: make(chan struct{})}
}

// ErrRefused is why Dial fails: the guest is gone, has closed its listener, or does
// not accept.
var ErrRefused = errors.New("the guest takes no connection")

// Ready is closed when the guest looks for a connection for the first time.
func (l *Listener) Ready() <-chan struct{} { return l.ready }

// Seen is when the guest last looked whether there is something for it to do; the
// zero time if it never did.
func (l *Listener) Seen() time.Time {
	if t := l.seen.Load(); t != 0 {
		return time.Unix(0, t)
	}
	return time.Time{}
}

// look notes that the guest does.
func (l *Listener) look() {
	l.seen.Store(time.Now().UnixNano())
	l.once.Do(func() { close(l.ready) })
}

func (l *Listener) attach(wake chan<- struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wake = wake
}

// Dial connects to the guest.
func (l *Listener) Dial() (*HostConn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.queue) >= l.backlog {
		return nil, ErrRefused
	}
	c := &Conn{in: newPipe(), out: newPipe()}
	c.in.reader, c.out.writer = l.wake, l.wake
	l.queue = append(l.queue, c)
	wake(l.wake)
	return &HostConn{c}, nil
}

func wake(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// accept takes a connection; nil if there is none.
func (l *Listener) accept() *Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) == 0 {
		return nil
	}
	c := l.queue[0]
	l.queue = l.queue[1:]
	return c
}

func (l *Listener) waiting() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.queue) > 0
}

// close refuses connections from now on, also those that wait.
func (l *Listener) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for _, c := range l.queue {
		c.close()
	}
	l.queue = nil
}

// Conn is a guest's end of a connection.
type Conn struct{ in, out *pipe }

func (c *Conn) close() {
	c.in.closeRead()
	c.out.closeWrite()
}

// HostConn is the other end. A Read or Write that waits ends when Close is called.
type HostConn struct{ c *Conn }

// Read implements io.Reader.
func (h *HostConn) Read(p []byte) (int, error) {
	for {
		n, state := h.c.out.read(p)
		if n > 0 || len(p) == 0 {
			return n, nil
		}
		switch state {
		case pipeEnded:
			return 0, io.EOF
		case pipeBroken:
			return 0, io.ErrClosedPipe
		}
		<-h.c.out.reads
	}
}

// Write implements io.Writer.
func (h *HostConn) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		n, state := h.c.in.write(p[done:])
		done += n
		if state == pipeBroken {
			return done, io.ErrClosedPipe
		}
		if done < len(p) && n == 0 {
			<-h.c.in.writes
		}
	}
	return done, nil
}

// CloseWrite tells the guest that nothing more comes.
func (h *HostConn) CloseWrite() error { h.c.in.closeWrite(); return nil }

// Close ends the connection both ways.
func (h *HostConn) Close() error {
	h.c.in.breakOff()
	h.c.out.breakOff()
	return nil
}

// Ended reports whether the guest has closed its end, or sent what nobody asked for.
func (h *HostConn) Ended() bool {
	h.c.out.mu.Lock()
	defer h.c.out.mu.Unlock()
	return h.c.out.ended || h.c.out.broken || h.c.out.len() > 0
}

// pipe is one direction. One end is the guest's, which never waits in here but is
// woken; the other is the host's.
type pipe struct {
	reads, writes  chan struct{}   // the host waits at one of them
	reader, writer chan<- struct{} // woken when there is something to read, and room to write

	mu     sync.Mutex
	buf    []byte
	from   int  // buf[from:] is to be read
	ended  bool // nothing more will be written
	broken bool // nothing more will be read
}

// maxPipe is how many bytes one direction holds at most.
const maxPipe = 64 << 10

type pipeState uint8

const (
	pipeOpen   pipeState = iota // nothing now, maybe later
	pipeEnded                   // the end, after everything was read
	pipeBroken                  // the other end is gone
)

func newPipe() *pipe {
	p := &pipe{reads: make(chan struct{}, 1), writes: make(chan struct{}, 1)}
	p.reader, p.writer = p.reads, p.writes // until the guest takes one of them
	return p
}

// signal wakes both ends; who has nothing to do goes back to waiting.
func (p *pipe) signal() {
	wake(p.reader)
	wake(p.writer)
}

func (p *pipe) len() int { return len(p.buf) - p.from }

func (p *pipe) read(b []byte) (int, pipeState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := copy(b, p.buf[p.from:])
	if n > 0 {
		full := p.len() >= maxPipe
		if p.from += n; p.from == len(p.buf) {
			p.buf, p.from = p.buf[:0], 0
		}
		if full {
			wake(p.writer)
		}
		return n, pipeOpen
	}
	switch {
	case p.broken:
		return 0, pipeBroken
	case p.ended:
		return 0, pipeEnded
	}
	return 0, pipeOpen
}

func (p *pipe) write(b []byte) (int, pipeState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken || p.ended {
		return 0, pipeBroken
	}
	b = b[:min(len(b), maxPipe-p.len())]
	if len(b) == 0 {
		return 0, pipeOpen
	}
	if p.from > 0 && len(p.buf)+len(b) > cap(p.buf) {
		p.buf, p.from = p.buf[:copy(p.buf, p.buf[p.from:])], 0
	}
	p.buf = append(p.buf, b...)
	wake(p.reader)
	return len(b), pipeOpen
}

func (p *pipe) readable() (n int, ended bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.len(), p.ended || p.broken
}

func (p *pipe) writable() (ok, broken bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.broken || p.ended || p.len() < maxPipe, p.broken
}

func (p *pipe) closeWrite() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	p.signal()
}

// closeRead makes writes fail and forgets what nobody will read.
func (p *pipe) closeRead() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.broken = true
	p.buf, p.from = nil, 0
	p.signal()
}

// breakOff ends a direction at once, for both ends.
func (p *pipe) breakOff() {
	p.closeRead()
	p.closeWrite()
}

func sockAccept(g *Guest, p []uint64) errno.Errno {
	f := g.file(p[0])
	switch {
	case f == nil:
		return errno.BadFD
	case f.listener == nil:
		return errno.NotSock
	}
	for {
		f.listener.look()
		if c := f.listener.accept(); c != nil {
			fd, e := g.add(&file{conn: c, flags: uint16(p[1]) & flagNonblock})
			if e != 0 {
				c.close()
				return e
			}
			return g.put32(p[2], fd)
		}
		if f.flags&flagNonblock != 0 {
			return errno.Again
		}
		g.Meter.Wait(-1, g.wake)
	}
}

// receive reads what there is, and waits for the first byte if the guest wants that.
func (g *Guest) receive(f *file, parts [][]byte) (uint32, errno.Errno) {
	total := uint32(0)
	for _, b := range parts {
		for len(b) > 0 {
			n, state := f.conn.in.read(b)
			total += uint32(n)
			b = b[n:]
			switch {
			case n > 0:
			case total > 0 || state == pipeEnded:
				return total, 0
			case state == pipeBroken:
				return 0, errno.NotConn
			case f.flags&flagNonblock != 0:
				return 0, errno.Again
			default:
				g.Meter.Wait(-1, g.wake)
			}
		}
	}
	return total, 0
}

func (g *Guest) send(f *file, parts [][]byte) (uint32, errno.Errno) {
	total := uint32(0)
	for _, b := range parts {
		for len(b) > 0 {
			n, state := f.conn.out.write(b)
			total += uint32(n)
			b = b[n:]
			switch {
			case n > 0:
			case state == pipeBroken:
				return 0, errno.Pipe
			case f.flags&flagNonblock != 0 && total > 0:
				return total, 0
			case f.flags&flagNonblock != 0:
				return 0, errno.Again
			default:
				g.Meter.Wait(-1, g.wake)
			}
		}
	}
	return total, 0
}

// connection is a descriptor of a connection.
func (g *Guest) connection(fd uint64) (*file, errno.Errno) {
	f := g.file(fd)
	switch {
	case f == nil:
		return nil, errno.BadFD
	case f.conn == nil:
		return nil, errno.NotSock
	}
	return f, 0
}

func sockRecv(g *Guest, p []uint64) errno.Errno {
	f, e := g.connection(p[0])
	switch {
	case e != 0:
		return e
	case uint32(p[3]) != 0:
		return errno.NotSup // to peek, to wait for all
	}
	parts, e := g.parts(p[1], p[2])
	if e != 0 {
		return e
	}
	n, e := g.receive(f, parts)
	if e != 0 {
		return e
	}
	b, ok := g.bytes(p[5], 2)
	if !ok {
		return errno.Fault
	}
	clear(b)
	return g.put32(p[4], n)
}

func sockSend(g *Guest, p []uint64) errno.Errno {
	f, e := g.connection(p[0])
	switch {
	case e != 0:
		return e
	case uint32(p[3]) != 0:
		return errno.NotSup
	}
	parts, e := g.parts(p[1], p[2])
	if e != 0 {
		return e
	}
	n, e := g.send(f, parts)
	if e != 0 {
		return e
	}
	return g.put32(p[4], n)
}

func sockShutdown(g *Guest, p []uint64) errno.Errno {
	const read, write = 1, 2
	f, e := g.connection(p[0])
	switch {
	case e != 0:
		return e
	case p[1] == 0 || p[1] > read|write:
		return errno.Invalid
	}
	if p[1]&read != 0 {
		f.conn.in.closeRead()
	}
	if p[1]&write != 0 {
		f.conn.out.closeWrite()
	}
	return 0
}
