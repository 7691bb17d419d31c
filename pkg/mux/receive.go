package mux

import (
	"fmt"
	"io"
	"time"
)

const (
	readBytes     = recordBytes
	directBytes   = 4 << 10 // a longer piece is not worth keeping the receiver for
	maxSendWindow = 1 << 30 // bytes; the other end cannot mean more
)

// receive takes in what comes, until the session ends. It never waits for anyone
// but the connection, so the other end's writes always come to an end.
func (s *Session) receive() {
	buf := make([]byte, readBytes)
	var spare []*Stream
	r := receiver{s: s}
	for {
		n, err := s.conn.Read(buf)
		s.mu.Lock()
		s.heard = s.heard || n > 0
		if terr := r.takeLocked(buf[:n]); terr != nil {
			err = terr
		} else if err == io.EOF {
			err = io.ErrUnexpectedEOF // no stream has ended well by this
		}
		// Readers are woken when all that is here is in their hands: one that
		// downloads gets several records at once.
		var wake []*Stream
		if err != nil {
			s.failLocked(err)
		}
		if err != nil || s.batch == nil || !s.batch.Ready() {
			wake, s.awakened = s.awakened, spare[:0]
			for _, st := range wake {
				st.awakened = false
			}
		}
		s.mu.Unlock()
		for i, st := range wake {
			st.readable.Broadcast()
			wake[i] = nil
		}
		if err != nil {
			return
		}
		if wake != nil {
			spare = wake
		}
	}
}

// receiver is where receive stands between two reads.
type receiver struct {
	s     *Session
	scan  scanner
	into  *Stream // whose payload comes; nil = nobody's
	flags uint16  // of its frame, to be obeyed after the payload
}

// takeLocked takes in what was read. It may give the lock away for a moment.
func (r *receiver) takeLocked(b []byte) error {
	for len(b) > 0 {
		h, isHeader, piece, rest, err := r.scan.next(b)
		if err != nil {
			return err
		}
		b = rest
		if isHeader {
			if err := r.headerLocked(h); err != nil {
				return err
			}
		} else if r.into != nil && len(piece) > 0 {
			r.s.deliverLocked(r.into, piece)
		}
		if st := r.into; st != nil && r.scan.left == 0 && r.scan.have == 0 {
			r.into = nil
			if st.got > 0 || st.held > 0 {
				r.s.awakenLocked(st)
			}
			st.flagsLocked(r.flags, 0)
		}
	}
	return nil
}

func (r *receiver) headerLocked(h header) error {
	s := r.s
	switch h.kind {
	case kindPing:
		s.pingedLocked(h)
		return nil
	case kindGoAway:
		return &GoAwayError{Code: h.length, Remote: true}
	}
	if h.flags&flagSYN != 0 {
		if err := s.openedLocked(h.stream); err != nil {
			return err
		}
	}
	st := s.streams[h.stream]
	if st == nil {
		return nil // we have closed it; what was on the way does not matter
	}
	if h.flags&flagACK != 0 && st.unaccepted {
		st.unaccepted = false
		<-s.unaccepted
	}
	if h.kind == kindWindow {
		if h.flags&flagRST == 0 && h.length > 0 {
			st.window = min(st.window+int64(h.length), maxSendWindow)
			st.writable.Broadcast()
		}
		st.flagsLocked(h.flags, h.length)
		return nil
	}
	if int64(h.length) > st.granted {
		return fmt.Errorf("%w: %d bytes on a stream that may send %d", ErrProtocol, h.length, st.granted)
	}
	st.granted -= int64(h.length)
	r.into, r.flags = st, h.flags
	return nil
}

// pingedLocked answers a ping, or takes the answer to ours.
func (s *Session) pingedLocked(h header) {
	if h.flags&flagSYN != 0 {
		if s.line.pongs < maxPongs {
			s.line.pongs++
			s.queueLocked(header{kind: kindPing, flags: flagACK, length: h.length})
			s.wakeLocked()
		}
		return
	}
	if p := &s.ping; p.under && p.id == h.length {
		now := time.Now()
		s.line.flight.judge(p.mark, now.Sub(p.at), now)
		s.answeredLocked()
	}
}

// openedLocked registers a stream that the other end opens, or refuses it.
func (s *Session) openedLocked(id uint32) error {
	if id == 0 || s.client == (id%2 == 1) {
		return fmt.Errorf("%w: it opens stream %d, which is not its to open", ErrProtocol, id)
	}
	if s.streams[id] != nil {
		return fmt.Errorf("%w: it opens stream %d twice", ErrProtocol, id)
	}
	if s.inbound < maxInbound && len(s.backlog) < maxBacklog {
		if budget, err := s.reserve(); err == nil {
			st := newStream(s, id, budget)
			s.streams[id] = st
			s.inbound++
			s.backlog = append(s.backlog, st)
			s.accept.Signal()
			return nil
		}
	}
	s.queueLocked(header{kind: kindWindow, flags: flagRST, stream: id})
	s.wakeLocked()
	return nil
}

// deliverLocked hands a piece of payload to whoever reads the stream, or keeps it
// for him. He is woken when it is full or the frame is whole: a frame that begins
// to come comes to an end, and half of one is twice the work.
func (s *Session) deliverLocked(st *Stream, piece []byte) {
	if st.readErr != nil {
		return // nobody will read it
	}
	if st.direct != nil && st.held == 0 && st.got == 0 && st.directErr == nil && len(piece) <= directBytes {
		try := st.direct
		st.trying = true
		s.mu.Unlock()
		n, err := try(piece)
		s.mu.Lock()
		st.trying = false
		if st.readErr != nil || st.direct == nil { // the reader was called off, and waits
			st.readable.Broadcast()
		}
		st.creditLocked(n)
		if st.directErr = err; err != nil {
			s.awakenLocked(st)
			return
		}
		if piece = piece[n:]; st.readErr != nil {
			return
		}
	}
	if len(piece) > 0 {
		n := 0
		if st.held == 0 && st.dst != nil {
			n = copy(st.dst[st.got:], piece)
			st.got += n
		}
		st.keep(piece[n:])
		if st.got == len(st.dst) {
			s.awakenLocked(st)
		}
	}
}

// awakenLocked notes a reader to be woken.
func (s *Session) awakenLocked(st *Stream) {
	if !st.awakened && st.dst != nil {
		st.awakened = true
		s.awakened = append(s.awakened, st)
	}
}

// flagsLocked obeys the flags that end a stream.
func (st *Stream) flagsLocked(flags uint16, code uint32) {
	s := st.session
	switch {
	case flags&flagRST != 0:
		st.endLocked(&StreamError{Code: code, Remote: true})
		s.forgetLocked(st)
	case flags&flagFIN != 0 && st.readErr == nil:
		st.readErr = io.EOF
		if st.writeErr != nil {
			s.forgetLocked(st)
		}
		s.awakenLocked(st)
	}
}
