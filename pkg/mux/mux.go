// Package mux carries many streams over one encrypted connection. On the wire it
// is yamux (libp2p's /yamux/1.0.0), and either end may be another implementation.
// It differs in what a message costs and in whose turn it is:
//
//   - whoever writes while the connection is idle sends it himself, so that a
//     small message takes one system call and wakes nobody here;
//   - streams take turns, short frames go before long ones, and only so much is on
//     the way at once: a short answer never waits behind somebody's download;
//   - what arrives goes straight into the buffer of a reader that waits, or, with
//     Drain, straight into the connection that it is for.
//
// It knows nothing of libp2p and decides nothing: how much memory the other end
// may claim is asked of a Budget.
package mux

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Budget is asked before memory is promised to the other end, once for each
// stream and when one is to have a larger window. Priorities are libp2p's: 255 is
// refused last.
type Budget interface {
	ReserveMemory(size int, priority uint8) error
	Done()
}

// Batcher is a connection that can hold back what is written and send it at once.
type Batcher interface {
	Hold()        // only one goroutine may
	Flush() error // writes what was held back, and holds no more
	Ready() bool  // whether a Read that follows the last one would find something at once
}

// Config is what New needs.
type Config struct {
	Client bool                   // whether this end dialled; one end must have
	Batch  Batcher                // of the connection; nil if it has none
	Budget func() (Budget, error) // for each stream; nil = all is granted
}

// The bounds of a session. Its memory is that of its streams' windows.
const (
	initialWindow = 256 << 10 // bytes that a stream may receive and not read; the protocol's
	maxWindow     = 2 << 20   // bytes, for a stream whose reader keeps up
	maxInbound    = 8192      // streams that the other end has open
	maxBacklog    = 256       // of these, not accepted yet; and ours that it has not accepted
	maxPongs      = 32        // answers that wait to be sent; further pings get none
	maxUrgent     = 1 << 20   // bytes of frames that wait ahead of all; more are a flood
)

// How long the other end has.
const (
	writeWithin = 10 * time.Second       // to take what is written
	answerTime  = 10 * time.Second       // to answer a ping
	silence     = 30 * time.Second       // before it is asked whether it is there
	goAwayGrace = 100 * time.Millisecond // to take the last word
)

// Session is one end of a connection that carries streams.
type Session struct {
	conn   net.Conn
	batch  Batcher
	budget func() (Budget, error)
	client bool

	unaccepted chan struct{} // a token for each stream of ours that was not accepted yet
	done       chan struct{} // closed when the session has ended
	wg         sync.WaitGroup

	mu       sync.Mutex
	err      error // why the session ended
	streams  map[uint32]*Stream
	nextID   uint32
	inbound  int
	backlog  []*Stream
	accept   sync.Cond // backlog has grown, or the session ended
	line     line
	ping     ping
	heard    bool // something came since the last tick
	quiet    int  // ticks without
	ticker   *time.Timer
	awakened []*Stream // readers to wake once the lock is free; the receiver's own
}

// New starts a session over conn, which is the session's from now on.
func New(conn net.Conn, cfg Config) *Session {
	s := newSession(conn, cfg)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pingLocked()
	s.ticker = time.AfterFunc(answerTime, s.tick)
	s.wg.Go(s.receive)
	s.wg.Go(s.send)
	return s
}

func newSession(conn net.Conn, cfg Config) *Session {
	s := &Session{
		conn: conn, batch: cfg.Batch, budget: cfg.Budget, client: cfg.Client,
		unaccepted: make(chan struct{}, maxBacklog), done: make(chan struct{}),
		streams: map[uint32]*Stream{}, nextID: 2,
	}
	if s.budget == nil {
		s.budget = func() (Budget, error) { return unlimited{}, nil }
	}
	if s.client {
		s.nextID = 1
	}
	s.accept.L, s.line.work.L, s.line.sent.L = &s.mu, &s.mu, &s.mu
	s.line.flight.window = minFlight
	return s
}

type unlimited struct{}

func (unlimited) ReserveMemory(int, uint8) error { return nil }
func (unlimited) Done()                          {}

// Open opens a stream. It waits while the other end has maxBacklog streams of
// ours to accept.
func (s *Session) Open(ctx context.Context) (*Stream, error) {
	select {
	case s.unaccepted <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.done:
		return nil, s.cause()
	}
	st, err := s.open()
	if err != nil {
		<-s.unaccepted
		return nil, err
	}
	return st, nil
}

func (s *Session) open() (*Stream, error) {
	budget, err := s.reserve()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil && s.nextID >= 1<<32-2 {
		budget.Done()
		return nil, errors.New("the connection has no stream numbers left")
	}
	if s.err != nil {
		budget.Done()
		return nil, s.err
	}
	st := newStream(s, s.nextID, budget)
	st.unaccepted = true
	s.nextID += 2
	s.streams[st.id] = st
	s.queueLocked(header{kind: kindWindow, flags: flagSYN, stream: st.id})
	s.pushLocked()
	return st, nil
}

func (s *Session) reserve() (Budget, error) {
	b, err := s.budget()
	if err != nil {
		return nil, err
	}
	if err := b.ReserveMemory(initialWindow, 255); err != nil {
		b.Done()
		return nil, err
	}
	return b, nil
}

// Accept waits for a stream that the other end opens.
func (s *Session) Accept() (*Stream, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.backlog) == 0 && s.err == nil {
		s.accept.Wait()
	}
	if s.err != nil {
		return nil, s.err
	}
	st := s.backlog[0]
	s.backlog[0] = nil
	s.backlog = s.backlog[1:]
	s.queueLocked(header{kind: kindWindow, flags: flagACK, stream: st.id})
	s.pushLocked()
	return st, nil
}

// Close ends the session and all its streams at once.
func (s *Session) Close() error {
	s.mu.Lock()
	s.failLocked(&GoAwayError{})
	s.mu.Unlock()
	s.wg.Wait()
	return nil
}

// CloseWithError tells the other end the reason first, if it takes it in time.
func (s *Session) CloseWithError(code uint32) error {
	s.mu.Lock()
	if s.err == nil && code != 0 {
		s.queueLocked(header{kind: kindGoAway, length: code})
		s.wakeLocked()
		late := time.AfterFunc(goAwayGrace, s.line.sent.Broadcast)
		for end := time.Now().Add(goAwayGrace); s.err == nil && s.line.busyLocked() && time.Now().Before(end); {
			s.line.sent.Wait()
		}
		late.Stop()
	}
	s.failLocked(&GoAwayError{Code: code})
	s.mu.Unlock()
	s.wg.Wait()
	return nil
}

// Ended reports whether the session has ended.
func (s *Session) Ended() bool { return s.cause() != nil }

func (s *Session) cause() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// failLocked ends the session, for the first reason that is given.
func (s *Session) failLocked(err error) {
	if s.err != nil {
		return
	}
	if !errors.As(err, new(*GoAwayError)) {
		err = fmt.Errorf("%w: %w", ErrLost, err)
	}
	s.err = err
	close(s.done)
	s.ticker.Stop()
	for _, st := range s.streams {
		st.endLocked(err)
		s.forgetLocked(st)
	}
	s.backlog = nil
	s.accept.Broadcast()
	s.line.work.Broadcast()
	s.line.sent.Broadcast()
	s.wg.Go(func() { s.conn.Close() }) // which may take a while, and unblocks receive and send
}

// forgetLocked drops a stream that has ended both ways, or was given up.
func (s *Session) forgetLocked(st *Stream) {
	if s.streams[st.id] != st {
		return
	}
	delete(s.streams, st.id)
	if st.inbound() {
		s.inbound--
	}
	if st.unaccepted {
		st.unaccepted = false
		<-s.unaccepted
	}
	st.budget.Done()
}

// tick looks after the other end: a ping that it did not answer, or long silence.
func (s *Session) tick() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	s.ticker.Reset(answerTime)
	if s.quiet++; s.heard {
		s.heard, s.quiet = false, 0
	}
	p := &s.ping
	switch {
	case p.under && time.Since(p.at) >= answerTime:
		if s.quiet > 0 {
			s.failLocked(errSilent)
			return
		}
		// It talks, and yet did not answer. Nothing may wait for that.
		s.line.flight.arrived = p.mark
		s.answeredLocked()
	case !p.under && s.quiet >= int(silence/answerTime):
		s.pingLocked()
		s.wakeLocked()
	}
}

// ping is the one that is under way, if any.
type ping struct {
	under bool
	id    uint32
	at    time.Time
	mark  int64 // of line.flight.sent
}

func (s *Session) pingLocked() {
	p := &s.ping
	p.under, p.at, p.mark = true, time.Now(), s.line.flight.sent
	p.id++
	s.queueLocked(header{kind: kindPing, flags: flagSYN, length: p.id})
}

// answeredLocked goes on with what waited for the answer to a ping.
func (s *Session) answeredLocked() {
	s.ping.under = false
	if s.line.flight.full() { // no frame will be sent that asks again
		s.pingLocked()
	}
	s.wakeLocked()
}

// StreamError says that a stream was reset.
type StreamError struct {
	Code   uint32
	Remote bool // by the other end
}

func (e *StreamError) Error() string {
	return fmt.Sprintf("the stream was reset by %s (code %d)", side(e.Remote), e.Code)
}

// GoAwayError says that the session was ended with a word to the other end.
type GoAwayError struct {
	Code   uint32
	Remote bool // by the other end
}

func (e *GoAwayError) Error() string {
	return fmt.Sprintf("the connection was closed by %s (code %d)", side(e.Remote), e.Code)
}

func side(remote bool) string {
	if remote {
		return "the other end"
	}
	return "this end"
}

// ErrLost is what a session and its streams end with when nobody ended it.
var ErrLost = errors.New("the connection was lost")

// ErrProtocol is the cause when the other end does not keep to the protocol, or
// to what it was granted.
var ErrProtocol = errors.New("the other end does not keep to the protocol")

var (
	errSilent     = errors.New("the other end does not answer")
	errFlood      = fmt.Errorf("%w: it makes more work than it takes answers", ErrProtocol)
	errClosedHere = errors.New("the stream is closed")
)
