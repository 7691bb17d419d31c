package peernet

import (
	"encoding/binary"
	"net"
	"sync"
	"time"

	pool "github.com/libp2p/go-buffer-pool"
)

// turns is the connection under a yamux session. The session writes one frame at
// a time; turns queues frames and sends them from a goroutine of its own:
//
//   - control frames and short data frames first, many in one record;
//   - then one long frame, and again.
//
// The frames of one stream keep their order. What a stream may have queued is
// bounded by its share, so a session's Write hardly ever waits.
type turns struct {
	net.Conn
	batch *batch        // under Conn; nil if it is no TLS of ours
	done  chan struct{} // closed when nothing is sent any more

	mu       sync.Mutex
	work     sync.Cond // there is something to send, or closed
	room     sync.Cond // there is less to send, or closed
	urgent   []byte    // whole frames
	debts    []debt    // of the data in urgent
	long     []frame   // first in, first out
	queued   int       // bytes in urgent and long, or being written
	deadline time.Time // for writing
	closed   bool
	err      error
	shares   map[uint32]*share
	flight   flight

	pings sync.WaitGroup // the goroutine of measure
}

// frame is a frame that waits behind others.
type frame struct {
	buf   []byte // from the pool
	share *share // nil if the stream is gone
}

// debt is what a stream gets back once its data is sent.
type debt struct {
	share *share
	n     int
}

const (
	shortBytes  = 2 << 10 // a data frame up to this is short
	maxUrgent   = 1 << 20 // more of urgent frames than this makes the session wait
	fullQueue   = 1 << 20 // with more than this queued, each stream gets one frame
	writeWithin = 10 * time.Second
	goAwayGrace = 100 * time.Millisecond
)

// The parts of a yamux header that matter here: byte 1 is the type, 2–3 flags,
// 4–7 the stream, 8–11 a length.
const (
	typeData         = 0
	typeWindowUpdate = 1
	typeGoAway       = 3
	flagFIN          = 4
	flagRST          = 8
)

func newTurns(c net.Conn) *turns {
	t := &turns{Conn: c, batch: batchUnder(c), done: make(chan struct{}), shares: map[uint32]*share{}}
	t.work.L, t.room.L, t.flight.probe.L = &t.mu, &t.mu, &t.mu
	t.flight.window = minFlight
	go t.send()
	return t
}

// Write queues one frame. An error is that of an earlier one.
func (t *turns) Write(b []byte) (int, error) {
	if len(b) < frameHeader {
		return 0, net.ErrClosed // not a frame: our own bug, and nobody else writes here
	}
	kind, flags := b[1], binary.BigEndian.Uint16(b[2:])
	t.mu.Lock()
	defer t.mu.Unlock()
	// Never for long frames: what they wait for may be the answer to a ping,
	// which the session could not send while it waits here.
	for len(t.urgent) > maxUrgent && !t.closed && t.err == nil {
		t.room.Wait()
	}
	if t.err != nil {
		return 0, t.err
	}
	if t.closed {
		return 0, net.ErrClosed
	}
	var sh *share
	if kind <= typeWindowUpdate {
		sh = t.shares[binary.BigEndian.Uint32(b[4:])]
	}
	behind := sh != nil && sh.long > 0 // the stream's own frames are ahead
	switch {
	case kind == typeData && (behind || len(b) > shortBytes),
		kind == typeWindowUpdate && behind && flags&(flagFIN|flagRST) != 0:
		buf := pool.Get(len(b))
		copy(buf, b)
		t.long = append(t.long, frame{buf, sh})
		if sh != nil {
			sh.long++
		}
	default:
		t.urgent = append(t.urgent, b...)
		if sh != nil && kind == typeData {
			t.debts = append(t.debts, debt{sh, len(b) - frameHeader})
		}
	}
	t.queued += len(b)
	t.work.Signal()
	if kind == typeGoAway {
		// The session closes the connection next.
		until := time.AfterFunc(goAwayGrace, t.room.Broadcast)
		defer until.Stop()
		for end := time.Now().Add(goAwayGrace); t.queued > 0 && t.err == nil && !t.closed && time.Now().Before(end); {
			t.room.Wait()
		}
	}
	return len(b), nil
}

// send writes what is queued until the connection fails or is closed.
func (t *turns) send() {
	defer close(t.done)
	var spare []byte
	var spareDebts []debt
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		for len(t.urgent) == 0 && (len(t.long) == 0 || t.flight.full()) && !t.closed && t.err == nil {
			t.work.Wait()
		}
		if t.closed || t.err != nil {
			return
		}
		urgent, debts := t.urgent, t.debts
		t.urgent, t.debts = spare[:0], spareDebts[:0]
		var next frame
		if len(t.long) > 0 && !t.flight.full() {
			next = t.long[0]
			t.long[0] = frame{}
			t.long = t.long[1:]
			if len(t.long) == 0 {
				t.long = nil
			}
			t.flight.send(len(next.buf))
		}
		err := t.extendLocked()
		t.mu.Unlock()
		if err == nil {
			err = t.write(urgent, next.buf)
		}
		t.mu.Lock()
		t.queued -= len(urgent) + len(next.buf)
		spare, spareDebts = nil, nil
		if cap(urgent) <= 256<<10 {
			spare, spareDebts = urgent, debts
		}
		for _, d := range debts {
			t.giveLocked(d.share, d.n)
		}
		if next.buf != nil {
			if sh := next.share; sh != nil {
				sh.long--
				n := 0
				if next.buf[1] == typeData {
					n = len(next.buf) - frameHeader
				}
				t.giveLocked(sh, n)
			}
			pool.Put(next.buf)
		}
		t.room.Broadcast()
		if err != nil {
			t.failLocked(err)
			return
		}
	}
}

// extendLocked puts off the write deadline, if it is halfway.
func (t *turns) extendLocked() error {
	now := time.Now()
	if t.deadline.Sub(now) >= writeWithin/2 {
		return nil
	}
	t.deadline = now.Add(writeWithin)
	return t.Conn.SetWriteDeadline(t.deadline)
}

// failLocked ends the sending, and the session's reading with it.
func (t *turns) failLocked(err error) {
	if t.err == nil {
		t.err = err
	}
	t.work.Broadcast()
	t.room.Broadcast()
	t.flight.probe.Broadcast()
	t.Conn.Close()
}

// write sends frames in as few system calls as it can.
func (t *turns) write(urgent, long []byte) error {
	// Frames that fit in one record are in one system call anyway.
	together := t.batch != nil && len(long) > 0 && len(urgent)+len(long) > frameBytes
	if together {
		t.batch.hold()
	}
	var err error
	for _, b := range [...][]byte{urgent, long} {
		if err == nil && len(b) > 0 {
			_, err = t.Conn.Write(b)
		}
	}
	if together {
		if ferr := t.batch.flush(); err == nil {
			err = ferr
		}
	}
	return err
}

// SetWriteDeadline does nothing: the session means the frame that it writes,
// which is only queued. send has deadlines of its own.
func (t *turns) SetWriteDeadline(time.Time) error { return nil }

// Close closes the connection and waits for the sending to end.
func (t *turns) Close() error {
	t.mu.Lock()
	t.closed = true
	t.work.Broadcast()
	t.room.Broadcast()
	t.flight.probe.Broadcast()
	t.mu.Unlock()
	err := t.Conn.Close()
	<-t.done
	t.pings.Wait()
	return err
}

// share is what one stream may have queued. turns.mu guards it.
type share struct {
	id     uint32
	taken  int  // bytes of data that were written to the session and not sent
	long   int  // frames in turns.long
	left   bool // the stream is closed here
	signal chan struct{}
}

// enter makes the share of a new stream.
func (t *turns) enter(id uint32) *share {
	sh := &share{id: id, signal: make(chan struct{}, 1)}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.shares[id] = sh
	return sh
}

// leave forgets the share of a stream that was closed, once everything that
// must stay ahead of its end is sent.
func (t *turns) leave(sh *share) {
	t.mu.Lock()
	defer t.mu.Unlock()
	sh.left = true
	t.giveLocked(sh, 0)
}

// take waits for the stream's turn, or until nothing is sent any more, and
// returns how much of n bytes the stream may write as its next frame.
func (t *turns) take(sh *share, n int) int {
	for {
		t.mu.Lock()
		n := min(n, t.flight.frame())
		if sh.taken == 0 || sh.taken+n <= streamInFlight && t.queued < fullQueue {
			sh.taken += n
			t.mu.Unlock()
			return n
		}
		t.mu.Unlock()
		select {
		case <-sh.signal:
		case <-t.done:
			t.mu.Lock()
			sh.taken += n
			t.mu.Unlock()
			return n // the session knows why
		}
	}
}

// give returns n bytes that the session did not take.
func (t *turns) give(sh *share, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.giveLocked(sh, n)
}

func (t *turns) giveLocked(sh *share, n int) {
	sh.taken -= n
	if sh.left && sh.taken <= 0 && sh.long == 0 && t.shares[sh.id] == sh {
		delete(t.shares, sh.id)
	}
	select {
	case sh.signal <- struct{}{}:
	default:
	}
}
