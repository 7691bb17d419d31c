package peernet

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/muxer/testsuite"
	"go.uber.org/goleak"
)

// TestMuxerSuite is what libp2p asks of every multiplexer.
func TestMuxerSuite(t *testing.T) {
	// It opens thousands of streams at once at an end that accepts none. Yamux has
	// such streams reset, and libp2p leaves it out for its own yamux, too.
	delete(mux.Subtests, "github.com/libp2p/go-libp2p/p2p/muxer/testsuite.SubtestStress1Conn1000Stream10Msg")
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	t.Setenv("CI", "true") // ten times as long, for a busy machine
	mux.SubtestAll(t, &muxer{})
}

// sessions makes two ends of one muxed connection over loopback TCP.
func sessions(t testing.TB) (client, server network.MuxedConn) {
	t.Helper()
	before := goleak.IgnoreCurrent()
	a, b := tcpPair(t)
	m := &muxer{}
	var err error
	if client, err = m.NewConn(a, false, nil); err != nil {
		t.Fatal(err)
	}
	if server, err = m.NewConn(b, true, nil); err != nil {
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

// TestMuxerErrors: what ended a stream or a connection is said in libp2p's terms.
func TestMuxerErrors(t *testing.T) {
	client, server := sessions(t)
	s, err := client.OpenStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	in, err := server.AcceptStream()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.ResetWithError(network.StreamRateLimited); err != nil {
		t.Fatal(err)
	}
	_ = in.SetReadDeadline(time.Now().Add(30 * time.Second))
	_, err = in.Read(make([]byte, 1))
	var se *network.StreamError
	if !errors.As(err, &se) || se.ErrorCode != network.StreamRateLimited || !se.Remote || !errors.Is(err, network.ErrReset) {
		t.Errorf("after a reset the other end read %v", err)
	}

	if _, err = client.OpenStream(t.Context()); err != nil {
		t.Fatal(err)
	}
	if in, err = server.AcceptStream(); err != nil {
		t.Fatal(err)
	}
	const gated = network.ConnGated
	if err := client.CloseWithError(gated); err != nil {
		t.Fatal(err)
	}
	for _, read := range []func() error{
		func() error { _, err := server.AcceptStream(); return err },
		func() error { _, err := in.Read(make([]byte, 1)); return err },
	} {
		err := read()
		var ce *network.ConnError
		if !errors.As(err, &ce) || ce.ErrorCode != gated || !ce.Remote {
			t.Errorf("the other end saw %v, want the error code %v", err, gated)
		}
	}
	if !client.IsClosed() || !server.IsClosed() {
		t.Error("a closed connection does not say so")
	}

	client, server = sessions(t)
	if s, err = client.OpenStream(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, network.ErrReset) || errors.Is(err, io.EOF) {
		t.Errorf("on a lost connection read %v, want a reset", err)
	}
}

// TestReadOr: over TCP short messages are handed over as they come, over QUIC they
// are read, and either way a deadline that was set stays as it was.
func TestReadOr(t *testing.T) {
	for _, transport := range []string{onTCP, onQUIC} {
		var direct, read atomic.Int32
		server := start(t, 1, &gateOf{all: true}, transport)
		server.Handle(echo, func(_ context.Context, s *Stream) {
			buf := make([]byte, 100)
			for {
				n, err := s.ReadOr(buf, func(b []byte) (int, error) {
					direct.Add(int32(len(b)))
					return len(b), nil
				})
				read.Add(int32(n))
				if err != nil {
					return
				}
			}
		})
		client := start(t, 2, &gateOf{all: true})
		client.Learn(server.ID(), server.Addrs())
		s, err := client.Open(t.Context(), server.ID(), echo)
		if err != nil {
			t.Fatal(err)
		}
		const rounds = 200
		for i := range int32(rounds) {
			if _, err := s.Write([]byte("0123456789")); err != nil {
				t.Fatal(err)
			}
			for end := time.Now().Add(30 * time.Second); direct.Load()+read.Load() < 10*(i+1) && time.Now().Before(end); {
				time.Sleep(10 * time.Microsecond) // so that the next one finds the reader waiting
			}
		}
		if err := s.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		_ = s.SetReadDeadline(time.Now().Add(30 * time.Second))
		if _, err := s.Read(make([]byte, 1)); err != io.EOF {
			t.Fatalf("%s: %v", transport, err)
		}
		if n := direct.Load() + read.Load(); n != 10*rounds {
			t.Errorf("%s: %d bytes came, want %d", transport, n, 10*rounds)
		}
		if handed := direct.Load() > 0; handed != (transport == onTCP) {
			t.Errorf("%s: %d bytes were handed over", transport, direct.Load())
		}
	}
}
