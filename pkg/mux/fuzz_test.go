package mux

import (
	"bytes"
	"errors"
	"net"
	"os"
	"testing"
	"time"
)

// FuzzScanner: however the bytes are cut, the frames are the same.
func FuzzScanner(f *testing.F) {
	f.Add(header{kind: kindData, stream: 1, length: 3}.append(nil), uint8(1))
	f.Add(append(header{kind: kindData, flags: flagFIN, stream: 1, length: 3}.append(nil), "abc\x00\x02"...), uint8(5))
	f.Add(header{kind: kindPing, flags: flagSYN, length: 9}.append(header{kind: kindGoAway, length: 1}.append(nil)), uint8(13))
	f.Fuzz(func(t *testing.T, b []byte, step uint8) {
		whole, wholeErr := scanAll(b, len(b)+1)
		cut, cutErr := scanAll(b, int(step)+1)
		if !bytes.Equal(whole, cut) || (wholeErr == nil) != (cutErr == nil) {
			t.Errorf("cut in pieces of %d: %x (%v), whole: %x (%v)", int(step)+1, cut, cutErr, whole, wholeErr)
		}
	})
}

// scanAll writes down all headers and payloads of b, which comes in steps.
func scanAll(b []byte, step int) (out []byte, err error) {
	var c scanner
	for len(b) > 0 {
		part := b[:min(step, len(b))]
		b = b[len(part):]
		for len(part) > 0 {
			h, isHeader, piece, rest, err := c.next(part)
			if err != nil {
				return out, err
			}
			if isHeader {
				out = h.append(append(out, 'h'))
			}
			for _, p := range piece {
				out = append(out, 'p', p)
			}
			part = rest
		}
	}
	return out, nil
}

// FuzzReceive feeds a session what it likes: as raw bytes, or four bytes to a frame
// that is well formed. It must never hold more than it granted, nor forget a
// stream that it counts. All is done on one goroutine, so that the fuzzer sees
// what its input changes.
func FuzzReceive(f *testing.F) {
	f.Add(false, header{kind: kindWindow, flags: flagSYN, stream: 1}.append(nil))
	f.Add(false, append(header{kind: kindData, flags: flagSYN | flagFIN, stream: 3, length: 2}.append(nil), "ab"...))
	f.Add(true, []byte{0x10, 1, 9, 0, 0x00, 1, 200, 1, 0x40, 1, 4, 0, 0x80, 1, 4, 0, 0x12, 0, 3, 3})
	f.Add(true, []byte{0x11, 1, 0, 0, 0x00, 1, 255, 255, 0x00, 1, 255, 255, 0x41, 1, 0, 0, 0x13, 0, 0, 0})
	f.Add(true, []byte{0x10, 5, 9, 9, 0x80, 5, 9, 9, 0x10, 5, 1, 1, 0x40, 5, 1, 1, 0x22, 0, 0, 1})
	f.Fuzz(func(t *testing.T, framed bool, b []byte) {
		if framed {
			b = frames(b)
		}
		s := newSession(sink{}, Config{})
		s.ticker = time.NewTimer(time.Hour)
		r := receiver{s: s}
		var all []*Stream
		for len(b) > 0 && s.err == nil {
			part := b[:min(readBytes, len(b))]
			b = b[len(part):]
			s.mu.Lock()
			if err := r.takeLocked(part); err != nil {
				s.failLocked(err)
			}
			s.roundsLocked() // as send does
			accepted := len(s.backlog)
			s.mu.Unlock()
			for range accepted {
				st, err := s.Accept()
				if err != nil {
					t.Fatal(err)
				}
				_ = st.SetReadDeadline(time.Unix(1, 0)) // what is there, without waiting
				all = append(all, st)
			}
			for i, st := range all {
				_, err := st.Read(make([]byte, 1+i*300))
				if err == nil && i%2 == 1 {
					_, err = st.Write([]byte("answer"))
				}
				if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && i%3 == 0 {
					st.Close()
				}
				if int64(st.held) > st.grant || st.granted < 0 || st.granted+int64(st.held) > st.grant {
					t.Fatalf("holds %d of %d, and %d may come", st.held, st.grant, st.granted)
				}
			}
			inbound := 0
			for _, st := range s.streams {
				if st.inbound() {
					inbound++
				}
			}
			if inbound != s.inbound {
				t.Fatalf("counts %d streams, and has %d", s.inbound, inbound)
			}
		}
		if err := s.Close(); err != nil || len(s.streams) != 0 || s.inbound != 0 {
			t.Errorf("after closing (%v) %d streams are left, and %d are counted", err, len(s.streams), s.inbound)
		}
	})
}

// frames makes a frame of each four bytes: flags and kind, stream, length.
func frames(b []byte) (out []byte) {
	for ; len(b) >= 4; b = b[4:] {
		h := header{kind: b[0] & 3, flags: uint16(b[0] >> 4), stream: uint32(b[1] & 7), length: uint32(b[2]) * uint32(b[3])}
		out = h.append(out)
		if h.kind == kindData {
			out = append(out, make([]byte, h.length)...)
		}
	}
	return out
}

// sink is a connection that takes everything and says nothing.
type sink struct{ net.Conn }

func (sink) Write(b []byte) (int, error)      { return len(b), nil }
func (sink) SetWriteDeadline(time.Time) error { return nil }
func (sink) Close() error                     { return nil }
