package mux

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-yamux/v5"
	"go.uber.org/goleak"
)

// end is one end of a connection: ours, or go-yamux's, which nobody here wrote.
type end interface {
	open(context.Context) (conn, error)
	accept() (conn, error)
	Close() error
}

type conn interface {
	io.ReadWriteCloser
	CloseWrite() error
	reset()
	SetDeadline(time.Time) error
	SetReadDeadline(time.Time) error
}

type ours struct{ *Session }

func (o ours) open(ctx context.Context) (conn, error) {
	s, err := o.Open(ctx)
	if err != nil {
		return nil, err
	}
	return oursConn{s}, nil
}

func (o ours) accept() (conn, error) {
	s, err := o.Accept()
	if err != nil {
		return nil, err
	}
	return oursConn{s}, nil
}

type oursConn struct{ *Stream }

func (c oursConn) reset() { c.Reset(7) }

type theirs struct{ *yamux.Session }

func (o theirs) open(ctx context.Context) (conn, error) {
	s, err := o.OpenStream(ctx)
	if err != nil {
		return nil, err
	}
	return theirsConn{s}, nil
}

func (o theirs) accept() (conn, error) {
	s, err := o.AcceptStream()
	if err != nil {
		return nil, err
	}
	return theirsConn{s}, nil
}

type theirsConn struct{ *yamux.Stream }

func (c theirsConn) reset() { _ = c.ResetWithError(7) }

// pairs runs a test with every combination of the two implementations.
func pairs(t *testing.T, f func(t *testing.T, client, server end)) {
	ourEnd := func(c net.Conn, client bool) end { return ours{New(c, Config{Client: client})} }
	yamuxEnd := func(c net.Conn, client bool) end {
		cfg := yamux.DefaultConfig()
		cfg.LogOutput = io.Discard
		start := yamux.Server
		if client {
			start = yamux.Client
		}
		s, err := start(c, cfg, nil)
		if err != nil {
			t.Fatal(err)
		}
		return theirs{s}
	}
	for _, c := range []struct {
		name           string
		client, server func(net.Conn, bool) end
	}{
		{"ours", ourEnd, ourEnd},
		{"yamux client", yamuxEnd, ourEnd},
		{"yamux server", ourEnd, yamuxEnd},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := goleak.IgnoreCurrent()
			a, b := tcpPair(t)
			client, server := c.client(a, true), c.server(b, false)
			t.Cleanup(func() {
				client.Close()
				server.Close()
				goleak.VerifyNone(t, before)
			})
			f(t, client, server)
		})
	}
}

// sessions makes both ends of one connection over loopback.
func sessions(t testing.TB) (client, server *Session) {
	t.Helper()
	before := goleak.IgnoreCurrent()
	a, b := tcpPair(t)
	client, server = New(a, Config{Client: true}), New(b, Config{})
	t.Cleanup(func() {
		client.Close()
		server.Close()
		goleak.VerifyNone(t, before)
	})
	return client, server
}

func tcpPair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	done := make(chan error, 1)
	go func() {
		var err error
		b, err = ln.Accept()
		done <- err
	}()
	if a, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return a, b
}

// serve runs h for every stream that e accepts.
func serve(e end, h func(conn)) {
	go func() {
		var wg sync.WaitGroup
		defer wg.Wait()
		for {
			s, err := e.accept()
			if err != nil {
				return
			}
			wg.Go(func() { h(s) })
		}
	}()
}

// TestKeepsOrder sends pieces of every size on many streams at once, and checks
// that each stream's bytes, and its end, arrive in order.
func TestKeepsOrder(t *testing.T) {
	pairs(t, func(t *testing.T, client, server end) {
		serve(server, func(s conn) {
			h := sha256.New()
			if _, err := io.Copy(h, s); err != nil {
				s.reset()
				return
			}
			_, _ = s.Write(h.Sum(nil))
			s.Close()
		})
		var wg sync.WaitGroup
		for i := range 48 {
			wg.Go(func() {
				s, err := client.open(context.Background())
				if err != nil {
					t.Error(err)
					return
				}
				defer s.Close()
				r := rand.New(rand.NewPCG(1, uint64(i)))
				h := sha256.New()
				for range 60 {
					size := 1 << r.IntN(17)
					b := make([]byte, size+r.IntN(size))
					for j := range b {
						b[j] = byte(r.Uint32())
					}
					h.Write(b)
					if n, err := s.Write(b); err != nil || n != len(b) {
						t.Errorf("wrote %d of %d: %v", n, len(b), err)
						return
					}
				}
				if err := s.CloseWrite(); err != nil {
					t.Error(err)
				}
				_ = s.SetReadDeadline(time.Now().Add(60 * time.Second))
				got, err := io.ReadAll(s)
				if err != nil || !bytes.Equal(got, h.Sum(nil)) {
					t.Errorf("stream %d: digest %x (%v), want %x", i, got, err, h.Sum(nil))
				}
			})
		}
		wg.Wait()
	})
}

// TestCloseBehindData: the end of a stream that was closed at once, with short
// and long frames still on the way, comes after all of them.
func TestCloseBehindData(t *testing.T) {
	pairs(t, func(t *testing.T, client, server end) {
		got := make(chan int, 1)
		serve(server, func(s conn) {
			n, err := io.Copy(io.Discard, s)
			if err != nil {
				n = -1
			}
			got <- int(n)
			s.Close()
		})
		for i := range 200 {
			s, err := client.open(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			want := 0
			for _, size := range []int{10, 60_000, 10, 3000, i} {
				n, err := s.Write(make([]byte, size))
				if err != nil {
					t.Fatal(err)
				}
				want += n
			}
			s.Close()
			if n := <-got; n != want {
				t.Fatalf("round %d: %d bytes arrived before the end, want %d", i, n, want)
			}
		}
	})
}

// TestHalfClose: a side that has said all of its own still hears the other.
func TestHalfClose(t *testing.T) {
	pairs(t, func(t *testing.T, client, server end) {
		serve(server, func(s conn) {
			defer s.Close()
			if _, err := io.Copy(io.Discard, s); err == nil {
				_, _ = s.Write(bytes.Repeat([]byte("answer"), 100_000))
			}
		})
		s, err := client.open(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write([]byte("question")); err != nil {
			t.Fatal(err)
		}
		if err := s.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write([]byte("more")); err == nil {
			t.Error("wrote to a stream closed for writing")
		}
		_ = s.SetDeadline(time.Now().Add(30 * time.Second))
		got, err := io.ReadAll(s)
		if err != nil || len(got) != 600_000 {
			t.Errorf("read %d bytes, %v", len(got), err)
		}
	})
}

// TestReset: it reaches the other end as one, with its code, wakes who reads and
// writes on both ends, and leaves other streams alone.
func TestReset(t *testing.T) {
	pairs(t, func(t *testing.T, client, server end) {
		accepted := make(chan conn, 2)
		serve(server, func(s conn) { accepted <- s })
		open := func() (here, there conn) {
			here, err := client.open(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := here.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			there = <-accepted
			if _, err := io.ReadFull(there, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			return here, there
		}
		other, otherThere := open()
		here, there := open()
		errs := make(chan error, 4)
		read := func(s conn) {
			_, err := s.Read(make([]byte, 1))
			errs <- err
		}
		write := func(s conn) {
			for {
				if _, err := s.Write(make([]byte, 100_000)); err != nil {
					errs <- err
					return
				}
			}
		}
		go read(here)
		go write(here)
		go write(there)
		here.reset()
		// What was on the way to the reader may come first.
		_ = there.SetReadDeadline(time.Now().Add(30 * time.Second))
		_, err := io.Copy(io.Discard, there)
		if !resetBy7(err, true) {
			t.Errorf("the other end read %v, want a reset with code 7", err)
		}
		for range 3 {
			select {
			case err := <-errs:
				if err == nil && !resetBy7(err, false) && !resetBy7(err, true) {
					t.Errorf("got %v, want a reset with code 7", err)
				}
			case <-time.After(30 * time.Second):
				t.Fatal("somebody still waits on a stream that was reset")
			}
		}
		if _, err := other.Write([]byte("y")); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadFull(otherThere, make([]byte, 1)); err != nil {
			t.Error(err)
		}
	})
}

func resetBy7(err error, remote bool) bool {
	var o *StreamError
	var y *yamux.StreamError
	return errors.As(err, &o) && o.Code == 7 && o.Remote == remote || errors.As(err, &y) && y.ErrorCode == 7 && y.Remote == remote
}

// TestDeadlines: one that passes while somebody waits ends the waiting, one that
// has passed lets what is there be read, and a new one lets the stream go on.
func TestDeadlines(t *testing.T) {
	client, server := sessions(t)
	accepted := make(chan conn, 1)
	serve(ours{server}, func(s conn) { accepted <- s })
	s, err := client.Open(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	there := <-accepted
	timedOut := func(err error) bool {
		var ne net.Error
		return errors.As(err, &ne) && ne.Timeout()
	}
	_ = s.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := s.Read(make([]byte, 1)); !timedOut(err) {
		t.Errorf("read: %v, want a timeout", err)
	}
	_ = s.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
	if n, err := s.Write(make([]byte, 4*initialWindow)); !timedOut(err) || n != initialWindow {
		t.Errorf("wrote %d, %v; want what the window takes, %d, and a timeout", n, err, initialWindow)
	}
	if _, err := there.Write([]byte("ab")); err != nil {
		t.Fatal(err)
	}
	_ = s.SetDeadline(time.Time{})
	if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	_ = s.SetReadDeadline(time.Unix(1, 0))
	if n, err := s.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Errorf("with a byte there: %d, %v", n, err)
	}
	if _, err := s.Read(make([]byte, 1)); !timedOut(err) {
		t.Errorf("read after the deadline: %v, want a timeout", err)
	}
	go func() { _, _ = io.Copy(io.Discard, there) }()
	if _, err := s.Write(make([]byte, 4*initialWindow)); err != nil {
		t.Error(err)
	}
	s.Close()
}

// TestShortBesideLong: a short message does not wait for the long ones that
// others have queued, and a stream whose reader stopped stops nobody else.
func TestShortBesideLong(t *testing.T) {
	pairs(t, func(t *testing.T, client, server end) {
		stuck := make(chan struct{})
		serve(server, func(s conn) {
			defer s.Close()
			var kind [1]byte
			if _, err := io.ReadFull(s, kind[:]); err != nil {
				return
			}
			switch kind[0] {
			case 'e': // echo
				_, _ = io.Copy(s, s)
			case 'd': // discard
				_, _ = io.Copy(io.Discard, s)
			case 's': // never read on
				<-stuck
			}
		})
		defer close(stuck)
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel()
		bulk := func(kind byte) {
			s, err := client.open(ctx)
			if err != nil {
				t.Error(err)
				return
			}
			stop := context.AfterFunc(ctx, s.reset)
			wg.Go(func() {
				defer stop()
				buf := bytes.Repeat([]byte{kind}, 64<<10)
				for ctx.Err() == nil {
					if _, err := s.Write(buf); err != nil {
						return
					}
				}
			})
		}
		for range 16 {
			bulk('s')
			bulk('d')
		}
		s, err := client.open(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if _, err := s.Write([]byte{'e'}); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 100)
		for i := range 200 {
			_ = s.SetDeadline(time.Now().Add(10 * time.Second))
			if _, err := s.Write(buf); err != nil {
				t.Fatalf("round %d: %v", i, err)
			}
			if _, err := io.ReadFull(s, buf); err != nil {
				t.Fatalf("round %d: %v", i, err)
			}
		}
	})
}

// TestLoss: writers and readers do not hang on a connection that is gone, and
// nothing is left running.
func TestLoss(t *testing.T) {
	pairs(t, func(t *testing.T, client, server end) {
		accepted := make(chan conn, 1)
		serve(server, func(s conn) { accepted <- s })
		s, err := client.open(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		there := <-accepted
		failed := make(chan error, 3)
		go func() {
			buf := make([]byte, 1<<20)
			for {
				if _, err := s.Write(buf); err != nil {
					failed <- err
					return
				}
			}
		}()
		go func() {
			_, err := s.Read(make([]byte, 1))
			failed <- err
		}()
		go func() {
			_, err := client.accept()
			failed <- err
		}()
		if _, err := io.ReadFull(there, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		server.Close()
		for range 3 {
			select {
			case err := <-failed:
				if _, ok := client.(ours); ok && (!errors.Is(err, ErrLost) || errors.Is(err, io.EOF)) {
					t.Errorf("a lost connection looks like %v", err)
				}
			case <-time.After(30 * time.Second):
				t.Fatal("somebody hangs on a connection that is gone")
			}
		}
		if _, err := client.open(context.Background()); err == nil {
			t.Error("opened a stream on a connection that is gone")
		}
	})
}

// TestGoAway: the last word reaches the other end.
func TestGoAway(t *testing.T) {
	client, server := sessions(t)
	if err := client.CloseWithError(99); err != nil {
		t.Fatal(err)
	}
	_, err := server.Accept()
	var ga *GoAwayError
	if !errors.As(err, &ga) || ga.Code != 99 || !ga.Remote {
		t.Errorf("the other end saw %v, want the code 99", err)
	}
}

// TestOpenWaits: streams that the other end has not accepted are bounded, and
// opening one more waits for that, or for its context.
func TestOpenWaits(t *testing.T) {
	client, server := sessions(t)
	for range maxBacklog {
		if _, err := client.Open(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := client.Open(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("opened one more: %v", err)
	}
	if _, err := server.Accept(); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Open(context.Background()); err != nil {
		t.Error(err)
	}
}

// TestReadOr: short pieces go to the function, what it does not take and long
// ones are read, nothing is lost and all is in order.
func TestReadOr(t *testing.T) {
	client, server := sessions(t)
	s, err := client.Open(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	in, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(3, 4))
	want := make([]byte, 8<<20)
	for i := range want {
		want[i] = byte(r.Uint32())
	}
	var got []byte // by the reader and the receiver in turns; mu.trying orders them
	took := 0
	direct := func(b []byte) (int, error) {
		n := r.IntN(len(b) + 1)
		if took++; took%2 == 0 {
			n = len(b)
		}
		got = append(got, b[:n]...)
		return n, nil
	}
	go func() {
		w := rand.New(rand.NewPCG(5, 6))
		for left, piece := want, 0; len(left) > 0; piece++ {
			n := min(len(left), 1<<w.IntN(16))
			if piece%64 == 0 { // this one finds the reader waiting
				n = 1
				waits(server, in)
			}
			if _, err := s.Write(left[:n]); err != nil {
				return
			}
			left = left[n:]
		}
		_ = s.CloseWrite()
	}()
	buf := make([]byte, 20_000)
	for {
		n, err := in.ReadOr(buf, direct)
		got = append(got, buf[:n]...)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes came, not the %d that were sent, or not in order", len(got), len(want))
	}
	if took == 0 {
		t.Error("nothing was handed over directly")
	}
	in.Close()

	s, _ = client.Open(context.Background())
	in, err = server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	failed := make(chan error, 1)
	go func() {
		_, err := in.ReadOr(buf, func([]byte) (int, error) { return 0, broken })
		failed <- err
	}()
	for { // the first byte may come before the reader
		if _, err := s.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-failed:
			if err == nil {
				go func() {
					_, err := in.ReadOr(buf, func([]byte) (int, error) { return 0, broken })
					failed <- err
				}()
				continue
			}
			if de := (*DirectError)(nil); !errors.As(err, &de) || de.Err != broken {
				t.Errorf("got %v, want the function's error", err)
			}
			return
		case <-time.After(time.Millisecond):
		}
	}
}

// waits returns once a ReadOr waits for bytes on the stream.
func waits(s *Session, st *Stream) {
	for {
		s.mu.Lock()
		waiting := st.direct != nil
		s.mu.Unlock()
		if waiting {
			return
		}
		time.Sleep(50 * time.Microsecond)
	}
}

// TestReadOrWaitsForDirect: a ReadOr that is called off does not return while its
// function is still being called.
func TestReadOrWaitsForDirect(t *testing.T) {
	client, server := sessions(t)
	s, err := client.Open(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	in, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	called, goOn := make(chan struct{}), make(chan struct{})
	returned := make(chan error, 1)
	go func() {
		_, err := in.ReadOr(make([]byte, 10), func(b []byte) (int, error) {
			close(called)
			<-goOn
			return len(b), nil
		})
		returned <- err
	}()
	waits(server, in)
	if _, err := s.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	<-called
	_ = in.SetReadDeadline(time.Unix(1, 0))
	select {
	case err := <-returned:
		t.Errorf("it returned %v meanwhile", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(goOn)
	if err := <-returned; !isTimeout(err) {
		t.Errorf("it returned %v, want a timeout", err)
	}
}

// BenchmarkRoundTrip asks and answers 300 bytes on one stream, or on 64 at once.
func BenchmarkRoundTrip(b *testing.B) {
	for _, streams := range []int{1, 64} {
		b.Run(fmt.Sprint(streams), func(b *testing.B) {
			client, server := sessions(b)
			serve(ours{server}, func(s conn) {
				defer s.Close()
				buf := make([]byte, 300)
				for {
					if _, err := io.ReadFull(s, buf); err != nil {
						return
					}
					if _, err := s.Write(buf); err != nil {
						return
					}
				}
			})
			var wg sync.WaitGroup
			for range streams {
				s, err := client.Open(context.Background())
				if err != nil {
					b.Fatal(err)
				}
				wg.Go(func() {
					defer s.Close()
					buf := make([]byte, 300)
					for range b.N / streams {
						if _, err := s.Write(buf); err != nil {
							b.Error(err)
							return
						}
						if _, err := io.ReadFull(s, buf); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
		})
	}
}
