package peernet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"peercompute/pkg/mux"
)

const muxerID = "/yamux/1.0.0"

// muxer gives libp2p our own multiplexer. On the wire it is yamux.
type muxer struct {
	mu    sync.Mutex
	found *mux.Stream // by find
}

var _ network.Multiplexer = (*muxer)(nil)

// find is the stream of ours that is under one of libp2p's; nil if there is none.
// libp2p has no way down to it, but hands deadlines down unseen: so a deadline
// that nobody means asks the stream to show itself.
func (m *muxer) find(s network.Stream) *mux.Stream {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.found = nil
	_ = s.SetReadDeadline(showYourself())
	if m.found == nil {
		_ = s.SetReadDeadline(time.Time{})
	}
	return m.found
}

func showYourself() time.Time { return time.Unix(1<<40, 271828182) }

// NewConn starts a session over an encrypted connection.
func (m *muxer) NewConn(nc net.Conn, isServer bool, scope network.PeerScope) (network.MuxedConn, error) {
	boundQueue(nc)
	cfg := mux.Config{Client: !isServer}
	if b := batchUnder(nc); b != nil {
		cfg.Batch = b
	}
	if scope != nil {
		cfg.Budget = func() (mux.Budget, error) { return scope.BeginSpan() }
	}
	return &muxedConn{m, mux.New(nc, cfg)}, nil
}

type muxedConn struct {
	muxer   *muxer
	session *mux.Session
}

func (c *muxedConn) OpenStream(ctx context.Context) (network.MuxedStream, error) {
	s, err := c.session.Open(ctx)
	if err != nil {
		return nil, muxError(err)
	}
	return &muxedStream{c.muxer, s}, nil
}

func (c *muxedConn) AcceptStream() (network.MuxedStream, error) {
	s, err := c.session.Accept()
	if err != nil {
		return nil, muxError(err)
	}
	return &muxedStream{c.muxer, s}, nil
}

func (c *muxedConn) Close() error { return c.session.Close() }

func (c *muxedConn) CloseWithError(code network.ConnErrorCode) error {
	return c.session.CloseWithError(uint32(code))
}

func (c *muxedConn) IsClosed() bool { return c.session.Ended() }

// As lets nobody reach the session.
func (c *muxedConn) As(any) bool { return false }

// muxedStream says in libp2p's terms what a stream says.
type muxedStream struct {
	muxer  *muxer
	stream *mux.Stream
}

func (s *muxedStream) Read(b []byte) (int, error) {
	n, err := s.stream.Read(b)
	return n, muxError(err)
}

func (s *muxedStream) Write(b []byte) (int, error) {
	n, err := s.stream.Write(b)
	return n, muxError(err)
}

func (s *muxedStream) Close() error { return muxError(s.stream.Close()) }

func (s *muxedStream) CloseWrite() error { return muxError(s.stream.CloseWrite()) }

func (s *muxedStream) CloseRead() error { return muxError(s.stream.CloseRead()) }

func (s *muxedStream) Reset() error { return s.ResetWithError(0) }

func (s *muxedStream) ResetWithError(code network.StreamErrorCode) error {
	s.stream.Reset(uint32(code))
	return nil
}

func (s *muxedStream) SetDeadline(t time.Time) error { return s.stream.SetDeadline(t) }

func (s *muxedStream) SetReadDeadline(t time.Time) error {
	if t.Equal(showYourself()) {
		s.muxer.found = s.stream // find holds the lock
		return nil
	}
	return s.stream.SetReadDeadline(t)
}

func (s *muxedStream) SetWriteDeadline(t time.Time) error { return s.stream.SetWriteDeadline(t) }

// muxError says in libp2p's terms what ended a stream or a session.
func muxError(err error) error {
	var stream *mux.StreamError
	var goAway *mux.GoAwayError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &stream):
		return &network.StreamError{Remote: stream.Remote, ErrorCode: network.StreamErrorCode(stream.Code), TransportError: err}
	case errors.As(err, &goAway):
		return &network.ConnError{Remote: goAway.Remote, ErrorCode: network.ConnErrorCode(goAway.Code), TransportError: err}
	case errors.Is(err, mux.ErrLost):
		return fmt.Errorf("%w: %w", network.ErrReset, err)
	}
	return err
}
