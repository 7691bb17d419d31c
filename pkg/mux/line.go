package mux

import (
	"sync"
	"time"
)

const (
	recordBytes = 16 << 10 // what a TLS record carries
	shortBytes  = 2 << 10  // a data frame up to this goes ahead of long ones
	urgentShare = 256 << 10
	ownRounds   = 2 // times that a writer sends what others have queued, too
)

// line is the sending half of a session. Whoever finds the connection idle sends
// what he has himself; what comes meanwhile is queued: short frames as bytes, long
// ones as their writers, who wait. The writer who was sending takes the short ones
// along, and leaves what else there is to Session.send, so that nobody is kept
// sending for others. Session.mu guards it.
type line struct {
	work    sync.Cond // send has something to do
	sent    sync.Cond // something was sent
	sending bool      // somebody is writing to the connection
	urgent  []byte    // whole frames
	pongs   int       // of these
	waiting []*Stream // with a long frame each; they take turns
	flight  flight

	spare    []byte    // for the next urgent
	deadline time.Time // for writing
}

func (l *line) hasWork() bool {
	return len(l.urgent) > 0 || len(l.waiting) > 0 && !l.flight.full()
}

func (l *line) busyLocked() bool { return l.sending || len(l.urgent) > 0 }

// queueLocked puts a frame without payload ahead of everything. Whoever calls it
// sees to it that it is sent.
func (s *Session) queueLocked(h header) {
	if len(s.line.urgent) > maxUrgent {
		s.failLocked(errFlood)
		return
	}
	s.line.urgent = h.append(s.line.urgent)
}

// pushLocked sends what is urgent, unless somebody is sending already: then he
// does, or send. It gives the lock away meanwhile.
func (s *Session) pushLocked() {
	l := &s.line
	if l.sending {
		return
	}
	l.sending = true
	s.roundsLocked()
	s.leaveLocked()
}

func (s *Session) roundsLocked() {
	for n := 0; n < ownRounds && len(s.line.urgent) > 0 && s.err == nil; n++ {
		s.transmitLocked(nil)
	}
}

func (s *Session) leaveLocked() {
	s.line.sending = false
	if s.line.hasWork() {
		s.line.work.Signal()
	}
}

// wakeLocked has send look at the queue, for those who must not send themselves.
func (s *Session) wakeLocked() {
	if !s.line.sending {
		s.line.work.Signal()
	}
}

// send sends what others leave, until the session ends.
func (s *Session) send() {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := &s.line
	for {
		for s.err == nil && (l.sending || !l.hasWork()) {
			l.work.Wait()
		}
		if s.err != nil {
			return
		}
		l.sending = true
		for s.err == nil && l.hasWork() {
			var next *Stream
			if len(l.waiting) > 0 && !l.flight.full() {
				next = l.waiting[0]
				l.waiting[0] = nil
				l.waiting = l.waiting[1:]
				if len(l.waiting) == 0 {
					l.waiting = nil
				}
			}
			s.transmitLocked(next)
		}
		l.sending = false
	}
}

// sendLocked sends a long frame, at once or in the stream's turn. The bytes are
// the writer's own until it returns. It gives the lock away meanwhile.
func (s *Session) sendLocked(st *Stream, b []byte) error {
	l := &s.line
	st.chunk = b
	if !l.sending && len(l.waiting) == 0 && !l.flight.full() {
		l.sending = true
		s.transmitLocked(st)
		s.roundsLocked()
		s.leaveLocked()
		return s.err
	}
	l.waiting = append(l.waiting, st)
	s.wakeLocked()
	for st.chunk != nil {
		if err := st.cannotWrite(); err != nil && !st.taken {
			st.chunk = nil
			l.waiting = without(l.waiting, st)
			return err
		}
		st.writable.Wait()
	}
	return s.err
}

func without(all []*Stream, st *Stream) []*Stream {
	for i, have := range all {
		if have == st {
			return append(all[:i:i], all[i+1:]...)
		}
	}
	return all
}

// transmitLocked writes the urgent frames and then the stream's long one, if there
// is one, in as few system calls as it can. The line is the caller's. It gives the
// lock away meanwhile.
func (s *Session) transmitLocked(st *Stream) {
	l := &s.line
	now := time.Now()
	if st != nil && l.flight.mayAsk() && !s.ping.under {
		s.pingLocked()
	}
	out := l.urgent
	l.urgent, l.spare, l.pongs = l.spare[:0], nil, 0
	var rest []byte
	if st != nil {
		st.taken = true
		out = header{kind: kindData, stream: st.id, length: uint32(len(st.chunk))}.append(out)
		l.flight.send(headerBytes+len(st.chunk), now)
		// The header shares a record with the data: a record costs as much as
		// copying one.
		n := min(len(st.chunk), recordBytes-len(out)%recordBytes)
		out, rest = append(out, st.chunk[:n]...), st.chunk[n:]
	}
	extend := l.deadline.Sub(now) < writeWithin/2
	if extend {
		l.deadline = now.Add(writeWithin)
	}
	s.mu.Unlock()
	err := s.write(out, rest, extend, now.Add(writeWithin))
	s.mu.Lock()
	if cap(out) <= 2*urgentShare {
		l.spare = out
	}
	if st != nil {
		st.chunk, st.taken = nil, false
		st.writable.Broadcast()
	}
	l.sent.Broadcast()
	if err != nil {
		s.failLocked(err)
	}
}

func (s *Session) write(out, rest []byte, extend bool, deadline time.Time) error {
	if extend {
		if err := s.conn.SetWriteDeadline(deadline); err != nil {
			return err
		}
	}
	together := s.batch != nil && len(out)+len(rest) > recordBytes
	if together {
		s.batch.Hold()
	}
	_, err := s.conn.Write(out)
	if err == nil && len(rest) > 0 {
		_, err = s.conn.Write(rest)
	}
	if together {
		if ferr := s.batch.Flush(); err == nil {
			err = ferr
		}
	}
	return err
}
