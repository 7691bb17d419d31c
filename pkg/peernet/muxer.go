package peernet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	libp2pyamux "github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-yamux/v5"
)

const muxerID = "/yamux/1.0.0"

// The sizes of the muxer, in bytes.
const (
	frameHeader     = 12
	frameBytes      = 16<<10 - frameHeader // of data in a frame: with its header, one TLS record
	fastFrameBytes  = 64<<10 - frameHeader // of data in a frame where that takes a moment
	streamInFlight  = 128 << 10            // what one stream may have written and not sent
	maxStreamWindow = 2 << 20              // what one stream may receive and not read
)

// muxer is yamux, byte for byte, with another order of sending: a stream may
// have only a little queued, so that streams take turns, and short frames go
// before long ones. Plain yamux sends first come, first served from a long queue, and a
// short answer waits there behind megabytes of someone's download.
type muxer struct{ config *yamux.Config }

var _ network.Multiplexer = muxer{}

func newMuxer() muxer {
	c := *libp2pyamux.DefaultTransport.Config()
	c.MaxMessageSize = fastFrameBytes + frameHeader
	c.MaxStreamWindowSize = maxStreamWindow
	return muxer{config: &c}
}

// NewConn starts a session over an encrypted connection.
func (m muxer) NewConn(nc net.Conn, isServer bool, scope network.PeerScope) (network.MuxedConn, error) {
	boundQueue(nc)
	var span func() (yamux.MemoryManager, error)
	if scope != nil {
		span = func() (yamux.MemoryManager, error) { return scope.BeginSpan() }
	}
	turns := newTurns(nc)
	start := yamux.Client
	if isServer {
		start = yamux.Server
	}
	s, err := start(turns, m.config, span)
	if err != nil {
		turns.Close()
		return nil, err
	}
	turns.measure(s.Ping, s.RTT)
	return &muxedConn{MuxedConn: libp2pyamux.NewMuxedConn(s), session: s, turns: turns}, nil
}

// muxedConn is a session whose streams take turns.
type muxedConn struct {
	network.MuxedConn
	session *yamux.Session
	turns   *turns
}

func (c *muxedConn) OpenStream(ctx context.Context) (network.MuxedStream, error) {
	s, err := c.session.OpenStream(ctx)
	if err != nil {
		return nil, muxError(err)
	}
	return &muxedStream{Stream: s, turns: c.turns, share: c.turns.enter(s.StreamID())}, nil
}

func (c *muxedConn) AcceptStream() (network.MuxedStream, error) {
	s, err := c.session.AcceptStream()
	if err != nil {
		return nil, muxError(err)
	}
	return &muxedStream{Stream: s, turns: c.turns, share: c.turns.enter(s.StreamID())}, nil
}

// As lets libp2p reach the session, as with its own yamux.
func (c *muxedConn) As(target any) bool {
	if t, ok := target.(**yamux.Session); ok {
		*t = c.session
		return true
	}
	return false
}

// muxedStream is a stream that waits for its turn to write.
type muxedStream struct {
	*yamux.Stream
	turns *turns
	share *share
}

func (s *muxedStream) Read(b []byte) (int, error) {
	n, err := s.Stream.Read(b)
	return n, muxError(err)
}

// Write sends b in frames, each in its turn. A turn comes as the connection
// sends, which has a deadline of its own, so waiting for one is bounded.
func (s *muxedStream) Write(b []byte) (int, error) {
	total := 0
	for total < len(b) {
		chunk := b[total : total+s.turns.take(s.share, len(b)-total)]
		n, err := s.Stream.Write(chunk)
		total += n
		if err != nil {
			s.turns.give(s.share, len(chunk)-n)
			return total, muxError(err)
		}
	}
	return total, nil
}

func (s *muxedStream) Close() error {
	err := s.Stream.Close()
	s.turns.leave(s.share)
	return muxError(err)
}

func (s *muxedStream) CloseWrite() error { return muxError(s.Stream.CloseWrite()) }

func (s *muxedStream) CloseRead() error { return muxError(s.Stream.CloseRead()) }

func (s *muxedStream) Reset() error { return s.ResetWithError(0) }

func (s *muxedStream) ResetWithError(code network.StreamErrorCode) error {
	err := s.Stream.ResetWithError(uint32(code))
	s.turns.leave(s.share)
	return muxError(err)
}

func (s *muxedStream) SetDeadline(t time.Time) error { return muxError(s.Stream.SetDeadline(t)) }

// muxError says in libp2p's terms what ended a stream.
func muxError(err error) error {
	var stream *yamux.StreamError
	var goAway *yamux.GoAwayError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &stream):
		return &network.StreamError{Remote: stream.Remote, ErrorCode: network.StreamErrorCode(stream.ErrorCode), TransportError: err}
	case errors.As(err, &goAway):
		return &network.ConnError{Remote: goAway.Remote, ErrorCode: network.ConnErrorCode(goAway.ErrorCode), TransportError: err}
	case errors.Is(err, yamux.ErrStreamReset):
		return fmt.Errorf("%w: %w", network.ErrReset, err)
	}
	return err
}
