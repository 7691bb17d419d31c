package mux

import "sync"

// segment is a piece of what came and was not read yet.
type segment struct {
	buf  *[segmentBytes]byte
	from int // where the unread bytes begin
	to   int // and end
}

const segmentBytes = 16 << 10

// segments is shared by all sessions: memory that nobody needs is the collector's.
var segments = sync.Pool{New: func() any { return new([segmentBytes]byte) }}

// keep stores b until it is read.
func (st *Stream) keep(b []byte) {
	st.held += len(b)
	for len(b) > 0 {
		if len(st.kept) == 0 || st.kept[len(st.kept)-1].to == segmentBytes {
			st.kept = append(st.kept, segment{buf: segments.Get().(*[segmentBytes]byte)})
		}
		last := &st.kept[len(st.kept)-1]
		n := copy(last.buf[last.to:], b)
		last.to += n
		b = b[n:]
	}
}

// takeKept reads what was stored.
func (st *Stream) takeKept(b []byte) (n int) {
	for n < len(b) && st.held > 0 {
		first := &st.kept[0]
		m := copy(b[n:], first.buf[first.from:first.to])
		n += m
		first.from += m
		if st.held -= m; first.from == first.to {
			segments.Put(first.buf)
			st.kept[0] = segment{}
			if st.kept = st.kept[1:]; len(st.kept) == 0 {
				st.kept = nil
			}
		}
	}
	return n
}

// drop forgets what was stored.
func (st *Stream) drop() {
	for _, g := range st.kept {
		segments.Put(g.buf)
	}
	st.kept, st.held = nil, 0
}
