package mux

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// hostile is a session of ours, as the server, and the raw connection to it.
func hostile(t *testing.T) (*Session, net.Conn) {
	t.Helper()
	a, b := tcpPair(t)
	s := New(b, Config{})
	t.Cleanup(func() {
		a.Close()
		s.Close()
	})
	return s, a
}

// TestBreaches: whoever does not keep to the protocol, or to its window, loses
// the connection.
func TestBreaches(t *testing.T) {
	open := header{kind: kindWindow, flags: flagSYN, stream: 1}
	for name, frames := range map[string][]byte{
		"version":          {1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"kind":             {0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"stream 0":         header{kind: kindData, flags: flagSYN}.append(nil),
		"our own number":   header{kind: kindData, flags: flagSYN, stream: 2}.append(nil),
		"twice":            open.append(open.append(nil)),
		"a long frame":     header{kind: kindData, stream: 1, length: initialWindow + 1}.append(open.append(nil)),
		"the longest":      header{kind: kindData, flags: flagSYN, stream: 1, length: 1<<32 - 1}.append(nil),
		"over many frames": overMany(open.append(nil)),
	} {
		t.Run(name, func(t *testing.T) {
			s, c := hostile(t)
			_, _ = c.Write(frames)
			// It hears no more from us: not even answers to what it sent before.
			_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
			if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal("the connection stays open")
			}
			if err := s.cause(); !errors.Is(err, ErrProtocol) {
				t.Errorf("it ended with %v, want %v", err, ErrProtocol)
			}
		})
	}
}

// overMany goes over the window a little, in its third frame.
func overMany(b []byte) []byte {
	for _, n := range []uint32{initialWindow / 2, initialWindow / 2, 1} {
		b = header{kind: kindData, stream: 1, length: n}.append(b)
		b = append(b, make([]byte, n)...)
	}
	return b
}

// TestStreamFlood: streams that nobody accepts, and streams over the limit, are
// reset, and the session goes on.
func TestStreamFlood(t *testing.T) {
	s, c := hostile(t)
	go func() {
		for id := uint32(1); id < 2*(maxBacklog+50); id += 2 {
			if _, err := c.Write(header{kind: kindWindow, flags: flagSYN, stream: id}.append(nil)); err != nil {
				return
			}
		}
	}()
	_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
	var b [headerBytes]byte
	for resets := 0; resets < 50; {
		if _, err := io.ReadFull(c, b[:]); err != nil {
			t.Fatalf("after %d resets: %v", resets, err)
		}
		h, err := parseHeader(b[:])
		if err != nil {
			t.Fatal(err)
		}
		if h.flags&flagRST != 0 {
			resets++
		}
	}
	s.mu.Lock()
	if len(s.backlog) != maxBacklog || s.inbound != maxBacklog || s.err != nil {
		t.Errorf("%d streams wait, %d are open, %v", len(s.backlog), s.inbound, s.err)
	}
	s.inbound = maxInbound // as if so many were open
	s.backlog = nil
	s.mu.Unlock()
	if _, err := c.Write(header{kind: kindWindow, flags: flagSYN, stream: 99_999}.append(nil)); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := io.ReadFull(c, b[:]); err != nil {
			t.Fatalf("a stream over the limit was not reset: %v", err)
		}
		if h, _ := parseHeader(b[:]); h.flags&flagRST != 0 && h.stream == 99_999 {
			break
		}
	}
	s.mu.Lock()
	s.inbound = maxBacklog
	s.mu.Unlock()
}

type refusing struct{}

func (refusing) ReserveMemory(int, uint8) error { return errors.New("no memory for you") }
func (refusing) Done()                          {}

// TestBudgetRefuses: a stream that there is no memory for is reset, and a window
// is not made larger than what was granted.
func TestBudgetRefuses(t *testing.T) {
	a, b := tcpPair(t)
	client := New(a, Config{Client: true})
	server := New(b, Config{Budget: func() (Budget, error) { return refusing{}, nil }})
	defer client.Close()
	defer server.Close()
	st, err := client.Open(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	_ = st.SetReadDeadline(time.Now().Add(30 * time.Second))
	var reset *StreamError
	if _, err := st.Read(make([]byte, 1)); !errors.As(err, &reset) || !reset.Remote {
		t.Errorf("read %v, want a reset", err)
	}
	if _, err := server.Open(context.Background()); err == nil {
		t.Error("opened a stream without memory")
	}
}

// TestPingFlood: pings that are sent faster than their answers are taken get no
// answer, and take no memory.
func TestPingFlood(t *testing.T) {
	s, c := hostile(t)
	ping := header{kind: kindPing, flags: flagSYN, length: 7}.append(nil)
	var many []byte
	for range 1000 {
		many = append(many, ping...)
	}
	_ = c.SetWriteDeadline(time.Now().Add(2 * time.Second))
	for range 1000 { // and never reads
		if _, err := c.Write(many); err != nil {
			break
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.line.urgent); n > 64<<10 {
		t.Errorf("%d bytes of answers wait", n)
	}
}

// TestResetFlood: somebody who opens stream after stream that must be refused, and
// does not take the refusals, loses the connection before they fill the memory.
func TestResetFlood(t *testing.T) {
	s, c := hostile(t)
	_ = c.SetWriteDeadline(time.Now().Add(20 * time.Second))
	var err error
	for id := uint32(1); err == nil; { // what the kernel's buffers take does not count
		var many []byte
		for range 10_000 {
			many = header{kind: kindWindow, flags: flagSYN, stream: id}.append(many)
			id += 2
		}
		_, err = c.Write(many)
		s.mu.Lock()
		n := len(s.line.urgent)
		s.mu.Unlock()
		if n > maxUrgent+headerBytes {
			t.Fatalf("%d bytes of refusals wait", n)
		}
	}
	if err := s.cause(); !errors.Is(err, ErrProtocol) {
		t.Errorf("it ended with %v, want %v", err, ErrProtocol)
	}
}

// TestWindowOverflow: grants without end do not wrap around.
func TestWindowOverflow(t *testing.T) {
	s, c := hostile(t)
	b := header{kind: kindWindow, flags: flagSYN, stream: 1}.append(nil)
	for range 10 {
		b = header{kind: kindWindow, stream: 1, length: 1<<32 - 1}.append(b)
	}
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
	st, err := s.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		window := st.window
		s.mu.Unlock()
		if window == maxSendWindow {
			return
		}
		if window < initialWindow || window > maxSendWindow || time.Now().After(end) {
			t.Fatalf("the window is %d", window)
		}
	}
}

// TestSilence: an end that does not answer a ping, and says nothing else, is gone.
func TestSilence(t *testing.T) {
	s, _ := hostile(t)
	s.tick() // heard nothing, but the ping of the beginning is young
	if s.Ended() {
		t.Fatal("ended at once")
	}
	s.mu.Lock()
	s.ping.at = s.ping.at.Add(-answerTime)
	s.mu.Unlock()
	s.tick()
	if err := s.cause(); !errors.Is(err, errSilent) {
		t.Errorf("ended with %v, want %v", err, errSilent)
	}
}

// TestPingIsNotAnswered: an end that talks and leaves a ping unanswered is not
// cut, and does not stop what waits for the answer.
func TestPingIsNotAnswered(t *testing.T) {
	s, c := hostile(t)
	go func() { _, _ = io.Copy(io.Discard, c) }()
	b := header{kind: kindWindow, flags: flagSYN, stream: 1, length: 8 << 20}.append(nil)
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
	st, err := s.Accept()
	if err != nil {
		t.Fatal(err)
	}
	wrote := make(chan error, 1)
	go func() {
		_, err := st.Write(make([]byte, 4*minFlight))
		wrote <- err
	}()
	for { // until what may be on the way without an answer is
		s.mu.Lock()
		full := s.line.flight.full()
		s.mu.Unlock()
		if full {
			break
		}
		time.Sleep(time.Millisecond)
	}
	for range 20 {
		s.mu.Lock()
		s.heard = true
		s.ping.at = s.ping.at.Add(-answerTime)
		s.mu.Unlock()
		s.tick()
		select {
		case err := <-wrote:
			if err != nil {
				t.Error(err)
			}
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
	t.Error("the write still waits")
}
