package mux

import (
	"io"
	"os"
	"sync"
	"time"
)

// Stream is one stream of a session. Its methods may be called at once by several
// goroutines; of two that read, or write, one waits for the other.
type Stream struct {
	session *Session
	id      uint32
	budget  Budget

	// What follows is guarded by session.mu.
	unaccepted bool // opened here, and not accepted yet

	reading   bool      // a Read is under way
	readable  sync.Cond // something came, or the end
	readErr   error     // why nothing comes any more
	readLimit deadline
	granted   int64     // bytes that the other end may send
	grant     int64     // of them, from a full window on
	since     time.Time // when the window was last filled up
	held      int       // bytes in kept
	kept      []segment // what came and was not read
	dst       []byte    // of a reader that waits
	got       int       // bytes in dst
	awakened  bool      // it is in session.awakened
	direct    func([]byte) (int, error)
	directErr error
	trying    bool // direct is being called

	writing    bool      // a Write is under way
	writable   sync.Cond // window or turn has come, or the end
	writeErr   error     // why nothing can be written any more
	writeLimit deadline
	window     int64  // bytes that may be sent
	chunk      []byte // a long frame's data, until it is sent
	taken      bool   // it is being sent
}

func newStream(s *Session, id uint32, budget Budget) *Stream {
	st := &Stream{
		session: s, id: id, budget: budget,
		granted: initialWindow, grant: initialWindow, window: initialWindow, since: time.Now(),
	}
	st.readable.L, st.writable.L = &s.mu, &s.mu
	return st
}

// inbound reports whether the other end opened it.
func (st *Stream) inbound() bool { return st.session.client == (st.id%2 == 0) }

// Read waits for bytes; those that have come are read before a deadline that has
// passed is noticed.
func (st *Stream) Read(b []byte) (int, error) { return st.ReadOr(b, nil) }

// ReadOr is Read, except that short pieces that come while it waits are handed to
// direct, on the goroutine that receives for all streams. So direct must not wait:
// it returns how many bytes it took, and the others are read. Its error ends the
// ReadOr, as a *DirectError, and what came after that is lost.
func (st *Stream) ReadOr(b []byte, direct func([]byte) (int, error)) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	s := st.session
	s.mu.Lock()
	defer s.mu.Unlock()
	for st.reading {
		st.readable.Wait()
	}
	st.reading = true
	n, err := st.readLocked(b, direct)
	st.reading = false
	st.readable.Signal() // another that reads
	st.creditLocked(n)
	return n, err
}

func (st *Stream) readLocked(b []byte, direct func([]byte) (int, error)) (int, error) {
	if st.readErr != nil && st.readErr != io.EOF {
		return 0, st.readErr
	}
	if st.held > 0 {
		return st.takeKept(b), nil
	}
	if st.readErr != nil {
		return 0, st.readErr
	}
	st.dst, st.got, st.direct, st.directErr = b, 0, direct, nil
	for st.got == 0 && st.readErr == nil && st.directErr == nil && !st.readLimit.passed {
		st.readable.Wait()
	}
	st.dst, st.direct = nil, nil
	for st.trying {
		st.readable.Wait()
	}
	switch {
	case st.directErr != nil:
		return 0, &DirectError{st.directErr}
	case st.readErr != nil && st.readErr != io.EOF:
		return 0, st.readErr
	case st.got > 0:
		n := st.got
		st.got = 0
		return n, nil
	case st.held > 0: // what direct had left when the deadline passed
		return st.takeKept(b), nil
	case st.readErr != nil:
		return 0, st.readErr
	}
	return 0, os.ErrDeadlineExceeded
}

// DirectError is the error of the function that ReadOr was given.
type DirectError struct{ Err error }

func (e *DirectError) Error() string { return e.Err.Error() }
func (e *DirectError) Unwrap() error { return e.Err }

// creditLocked grants the other end as much as was read, once it is worth a frame.
// Session.send sends it: it is in no hurry, and others' may go along.
func (st *Stream) creditLocked(n int) {
	s := st.session
	if st.readErr != nil || n == 0 {
		return
	}
	delta := st.grant - st.granted - int64(st.held+st.got)
	if delta < st.grant/2 {
		return
	}
	now := time.Now()
	// A reader that keeps up with a window in a few round trips is held up by it.
	if rtt := s.line.flight.least; rtt > 0 && now.Sub(st.since) < 4*rtt && st.grant < maxWindow {
		if more := min(st.grant, maxWindow-st.grant); st.budget.ReserveMemory(int(more), 128) == nil {
			st.grant += more
			delta += more
		}
	}
	st.since = now
	st.granted += delta
	s.queueLocked(header{kind: kindWindow, stream: st.id, length: uint32(delta)})
	s.wakeLocked()
}

// Write waits until the connection, and the other end's window, have taken b or
// what is ahead of it. It returns how much of b was written, also with an error.
func (st *Stream) Write(b []byte) (int, error) {
	s := st.session
	s.mu.Lock()
	defer s.mu.Unlock()
	for st.writing {
		if err := st.cannotWrite(); err != nil {
			return 0, err
		}
		st.writable.Wait()
	}
	st.writing = true
	n, err := st.writeLocked(b)
	st.writing = false
	st.writable.Signal() // another that writes
	return n, err
}

func (st *Stream) writeLocked(b []byte) (n int, err error) {
	s := st.session
	for n < len(b) {
		if err := st.cannotWrite(); err != nil {
			return n, err
		}
		if st.window == 0 {
			st.writable.Wait()
			continue
		}
		size := s.line.flight.size(len(b)-n, st.window)
		st.window -= int64(size)
		if size > shortBytes || len(s.line.urgent) > urgentShare {
			if err := s.sendLocked(st, b[n:n+size]); err != nil {
				st.window += int64(size)
				return n, err
			}
		} else {
			h := header{kind: kindData, stream: st.id, length: uint32(size)}
			s.line.urgent = append(h.append(s.line.urgent), b[n:n+size]...)
			s.pushLocked()
		}
		n += size
	}
	return n, nil
}

func (st *Stream) cannotWrite() error {
	if st.writeErr == nil && st.writeLimit.passed {
		return os.ErrDeadlineExceeded
	}
	return st.writeErr
}

// CloseWrite tells the other end that nothing follows.
func (st *Stream) CloseWrite() error {
	s := st.session
	s.mu.Lock()
	defer s.mu.Unlock()
	return st.closeWriteLocked()
}

func (st *Stream) closeWriteLocked() error {
	s := st.session
	if st.writeErr == errClosedHere {
		return nil
	}
	if st.writeErr != nil {
		return st.writeErr
	}
	st.writeErr = errClosedHere
	st.writeLimit.stop()
	st.writable.Broadcast()
	s.queueLocked(header{kind: kindWindow, flags: flagFIN, stream: st.id})
	if st.readErr != nil {
		s.forgetLocked(st)
	}
	s.pushLocked()
	return nil
}

// CloseRead gives up what still comes. The other end is not told.
func (st *Stream) CloseRead() error {
	s := st.session
	s.mu.Lock()
	defer s.mu.Unlock()
	st.closeReadLocked()
	if st.writeErr != nil {
		s.forgetLocked(st)
	}
	return nil
}

func (st *Stream) closeReadLocked() {
	if st.readErr == nil || st.readErr == io.EOF {
		st.readErr = errClosedHere
	}
	st.readLimit.stop()
	st.drop()
	st.readable.Broadcast()
}

// Close is CloseRead and CloseWrite.
func (st *Stream) Close() error {
	s := st.session
	s.mu.Lock()
	defer s.mu.Unlock()
	st.closeReadLocked()
	if st.writeErr != nil {
		s.forgetLocked(st)
	}
	return st.closeWriteLocked()
}

// Reset ends the stream both ways at once and tells the other end the code.
func (st *Stream) Reset(code uint32) {
	s := st.session
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams[st.id] != st {
		return // ended already
	}
	st.endLocked(&StreamError{Code: code})
	s.forgetLocked(st)
	s.queueLocked(header{kind: kindWindow, flags: flagRST, stream: st.id, length: code})
	s.pushLocked()
}

// endLocked ends both directions that have not ended yet.
func (st *Stream) endLocked(err error) {
	if st.readErr == nil {
		st.readErr = err
		st.drop()
	}
	if st.writeErr == nil {
		st.writeErr = err
	}
	st.readLimit.stop()
	st.writeLimit.stop()
	st.readable.Broadcast()
	st.writable.Broadcast()
}

// SetDeadline sets both deadlines; the zero time means none.
func (st *Stream) SetDeadline(t time.Time) error {
	_ = st.SetReadDeadline(t)
	return st.SetWriteDeadline(t)
}

// SetReadDeadline bounds the waiting of Reads, also of one under way.
func (st *Stream) SetReadDeadline(t time.Time) error {
	st.limit(&st.readLimit, &st.readable, &st.readErr, t)
	return nil
}

// SetWriteDeadline bounds the waiting of Writes, also of one under way.
func (st *Stream) SetWriteDeadline(t time.Time) error {
	st.limit(&st.writeLimit, &st.writable, &st.writeErr, t)
	return nil
}

// deadline is when waiting ends.
type deadline struct {
	timer  *time.Timer
	passed bool
}

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}

func (st *Stream) limit(d *deadline, wake *sync.Cond, ended *error, t time.Time) {
	mu := &st.session.mu
	mu.Lock()
	defer mu.Unlock()
	d.stop()
	d.passed = false
	if t.IsZero() || *ended != nil {
		return
	}
	wait := time.Until(t)
	if wait <= 0 {
		d.passed = true
		wake.Broadcast()
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(wait, func() {
		mu.Lock()
		defer mu.Unlock()
		if d.timer == timer { // it has not been set anew
			d.timer, d.passed = nil, true
			wake.Broadcast()
		}
	})
	d.timer = timer
}
