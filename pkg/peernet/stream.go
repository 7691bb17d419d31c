package peernet

import (
	"context"
	"net"
	"runtime/debug"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"

	"peercompute/pkg/mesh"
	"peercompute/pkg/mux"
)

// Stream is one bidirectional stream to a peer. It is a net.Conn.
type Stream struct {
	network.Stream
	muxed  *mux.Stream // under Stream; nil where it is not known
	cancel context.CancelFunc
}

var _ net.Conn = (*Stream)(nil)

// ReadOr is Read, except that short pieces that come while it waits may be handed
// to direct, on the goroutine that receives for all streams of the connection. So
// direct must not wait: it returns how many bytes it took, and the others are
// read. An error of direct ends the ReadOr, and what came after that is lost.
func (s *Stream) ReadOr(b []byte, direct func([]byte) (int, error)) (int, error) {
	if s.muxed == nil {
		return s.Read(b)
	}
	n, err := s.muxed.ReadOr(b, direct)
	return n, muxError(err)
}

// Peer is who is at the other end, as the connection's handshake proved.
func (s *Stream) Peer() mesh.PeerID { return s.Conn().RemotePeer() }

// Reset ends the stream in both directions at once, without waiting.
func (s *Stream) Reset() {
	if s.cancel != nil {
		s.cancel()
	}
	_ = s.Stream.Reset()
}

// LocalAddr and RemoteAddr make a Stream a net.Conn.
func (s *Stream) LocalAddr() net.Addr  { return addr(s.Conn().LocalPeer().String()) }
func (s *Stream) RemoteAddr() net.Addr { return addr(s.Conn().RemotePeer().String()) }

type addr string

func (addr) Network() string  { return "libp2p" }
func (a addr) String() string { return string(a) }

// Handle registers the handler of a protocol. The handler owns the stream and
// runs in its own goroutine; ctx ends when the stream is reset from here (the
// peer was removed, or the node stops). The stream is closed when it returns.
func (n *Net) Handle(proto string, h func(ctx context.Context, s *Stream)) {
	n.handle(proto, n.cfg.Gate.Allowed, h)
}

func (n *Net) handle(proto string, allowed func(mesh.PeerID) bool, h func(ctx context.Context, s *Stream)) {
	n.host.SetStreamHandler(protocol.ID(proto), func(ns network.Stream) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		s := &Stream{Stream: ns, muxed: n.muxer.find(ns), cancel: cancel}
		if !n.track(s) {
			s.Reset()
			return
		}
		defer n.untrack(s)
		// A bug that one peer can reach must not end the node for all others.
		defer func() {
			if r := recover(); r != nil {
				n.cfg.Log.Error("panic in a stream handler", "protocol", proto, "peer", s.Peer(), "panic", r, "stack", string(debug.Stack()))
				s.Reset()
			}
		}()
		// After tracking, so that a removal in between still finds the stream.
		if !allowed(s.Peer()) {
			s.Reset()
			return
		}
		h(ctx, s)
		s.Close()
	})
}

func (n *Net) track(s *Stream) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return false
	}
	set := n.cancels[s.Peer()]
	if set == nil {
		set = map[*Stream]struct{}{}
		n.cancels[s.Peer()] = set
	}
	set[s] = struct{}{}
	n.wg.Add(1)
	return true
}

func (n *Net) untrack(s *Stream) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if set := n.cancels[s.Peer()]; set != nil {
		delete(set, s)
		if len(set) == 0 {
			delete(n.cancels, s.Peer())
		}
	}
	n.wg.Done()
}

// Disconnect resets every stream of p, cancels their handlers and closes its
// connections. The gate must refuse p already.
func (n *Net) Disconnect(p mesh.PeerID) error {
	n.reset(p)
	err := n.host.Network().ClosePeer(p)
	n.host.Peerstore().ClearAddrs(p)
	return err
}

// reset ends what handlers do for p.
func (n *Net) reset(p mesh.PeerID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for s := range n.cancels[p] {
		s.Reset()
	}
}

// ResetOthers resets every inbound stream of the peer at the other end of s but s
// itself, and cancels their handlers.
func (n *Net) ResetOthers(s *Stream) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for other := range n.cancels[s.Peer()] {
		if other != s {
			other.Reset()
		}
	}
}
