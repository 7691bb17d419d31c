package peernet

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

	"github.com/libp2p/go-libp2p/core/network"
	"go.uber.org/goleak"
)

// sessions makes two ends of one muxed connection over loopback TCP.
func sessions(t testing.TB) (client, server network.MuxedConn) {
	t.Helper()
	before := goleak.IgnoreCurrent()
	a, b := tcpPair(t)
	var err error
	if client, err = newMuxer().NewConn(a, false, nil); err != nil {
		t.Fatal(err)
	}
	if server, err = newMuxer().NewConn(b, true, nil); err != nil {
		t.Fatal(err)
	}
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

// serve runs h for every stream that c accepts.
func serve(c network.MuxedConn, h func(network.MuxedStream)) {
	go func() {
		var wg sync.WaitGroup
		defer wg.Wait()
		for {
			s, err := c.AcceptStream()
			if err != nil {
				return
			}
			wg.Go(func() { h(s) })
		}
	}()
}

// TestMuxerKeepsOrder sends pieces of every size on many streams at once, and
// checks that each stream's bytes, and its end, arrive in order.
func TestMuxerKeepsOrder(t *testing.T) {
	client, server := sessions(t)
	serve(server, func(s network.MuxedStream) {
		h := sha256.New()
		if _, err := io.Copy(h, s); err != nil {
			s.Reset()
			return
		}
		_, _ = s.Write(h.Sum(nil))
		s.Close()
	})
	var wg sync.WaitGroup
	for i := range 48 {
		wg.Go(func() {
			s, err := client.OpenStream(context.Background())
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
			_ = s.SetReadDeadline(time.Now().Add(30 * time.Second))
			got, err := io.ReadAll(s)
			if err != nil || !bytes.Equal(got, h.Sum(nil)) {
				t.Errorf("stream %d: digest %x (%v), want %x", i, got, err, h.Sum(nil))
			}
		})
	}
	wg.Wait()
}

// TestMuxerCloseBehindData: the end of a stream that was closed at once, with
// short and long frames still queued, comes after all of them.
func TestMuxerCloseBehindData(t *testing.T) {
	client, server := sessions(t)
	got := make(chan int, 1)
	serve(server, func(s network.MuxedStream) {
		n, err := io.Copy(io.Discard, s)
		if err != nil {
			n = -1
		}
		got <- int(n)
		s.Close()
	})
	for i := range 200 {
		s, err := client.OpenStream(context.Background())
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
	client.Close() // the bookkeeping of the last frame is done after this
	turns := client.(*muxedConn).turns
	turns.mu.Lock()
	defer turns.mu.Unlock()
	if n := len(turns.shares); n != 0 {
		t.Errorf("%d shares are left of closed streams", n)
	}
}

// TestMuxerShortBesideLong: a short message does not wait for the long ones that
// others have queued, and a stream whose reader stopped stops nobody else.
func TestMuxerShortBesideLong(t *testing.T) {
	client, server := sessions(t)
	stuck := make(chan struct{})
	serve(server, func(s network.MuxedStream) {
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
		s, err := client.OpenStream(ctx)
		if err != nil {
			t.Error(err)
			return
		}
		stop := context.AfterFunc(ctx, func() { s.Reset() })
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
	s, err := client.OpenStream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Write([]byte{'e'}); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	for i := range 200 {
		_ = s.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := s.Write(buf); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		if _, err := io.ReadFull(s, buf); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
	}
	turns := client.(*muxedConn).turns
	turns.mu.Lock()
	defer turns.mu.Unlock()
	for id, sh := range turns.shares {
		if sh.taken > streamInFlight {
			t.Errorf("stream %d has %d bytes queued, its share is %d", id, sh.taken, streamInFlight)
		}
	}
}

// TestMuxerResetAndLoss: a reset reaches the other end as one, writers do not
// hang on a connection that is gone, and nothing is left running.
func TestMuxerResetAndLoss(t *testing.T) {
	client, server := sessions(t)
	accepted := make(chan network.MuxedStream, 2)
	serve(server, func(s network.MuxedStream) { accepted <- s })
	s, err := client.OpenStream(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	s.Reset()
	in := <-accepted
	_ = in.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.Copy(io.Discard, in); !errors.Is(err, network.ErrReset) {
		t.Errorf("the other end read %v, want a reset", err)
	}

	s, err = client.OpenStream(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	go func() {
		buf := make([]byte, 1<<20)
		for {
			if _, err := s.Write(buf); err != nil {
				failed <- err
				return
			}
		}
	}()
	<-accepted
	server.Close()
	select {
	case <-failed:
	case <-time.After(10 * time.Second):
		t.Error("a write hangs on a connection that is gone")
	}
}

func TestMuxerGoAwayIsSent(t *testing.T) {
	client, server := sessions(t)
	const gated = network.ConnGated
	if err := client.CloseWithError(gated); err != nil {
		t.Fatal(err)
	}
	_, err := server.AcceptStream()
	var ce *network.ConnError
	if !errors.As(err, &ce) || ce.ErrorCode != gated || !ce.Remote {
		t.Errorf("the other end saw %v, want the error code %v", err, gated)
	}
}

func TestFlightJudges(t *testing.T) {
	f := flight{window: minFlight, least: 100 * time.Microsecond}
	if f.full() {
		t.Error("full with nothing on the way")
	}
	f.sent = minFlight
	if !f.full() {
		t.Error("not full with the window on the way")
	}
	f.judge(f.sent, time.Millisecond, time.Unix(1, 0)) // quick: it may grow
	if f.window <= minFlight || f.arrived != f.sent {
		t.Errorf("window %d, arrived %d of %d", f.window, f.arrived, f.sent)
	}
	for range 100 {
		f.limited = true
		f.judge(f.sent, time.Second, time.Unix(1, 0)) // slow: it shrinks to the floor
	}
	if f.window != minFlight {
		t.Errorf("window %d after slow answers, want %d", f.window, minFlight)
	}
	for range 100 {
		f.limited = true
		f.judge(f.sent, 10*time.Microsecond, time.Unix(1, 0))
	}
	if f.window != maxFlight {
		t.Errorf("window %d after quick answers, want %d", f.window, maxFlight)
	}
	far := flight{window: minFlight, sent: 1 << 30}
	far.judge(0, 50*time.Millisecond, time.Unix(1, 0))
	if far.full() {
		t.Error("a far connection is held back")
	}
	for rate, want := range map[int64]int{1 << 20: frameBytes, 1 << 30: fastFrameBytes} { // bytes a second
		rated := flight{window: minFlight}
		rated.judge(0, time.Millisecond, time.Unix(1, 0))
		rated.judge(rate/100, time.Millisecond, time.Unix(1, 0).Add(10*time.Millisecond))
		if got := rated.frame(); got != want {
			t.Errorf("at %d MiB/s frames carry %d bytes, want %d", rate>>20, got, want)
		}
	}
}

// BenchmarkMuxerRoundTrip asks and answers 300 bytes on one stream, or on 64 at once.
func BenchmarkMuxerRoundTrip(b *testing.B) {
	for _, streams := range []int{1, 64} {
		b.Run(fmt.Sprint(streams), func(b *testing.B) {
			client, server := sessions(b)
			serve(server, func(s network.MuxedStream) {
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
				s, err := client.OpenStream(context.Background())
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
