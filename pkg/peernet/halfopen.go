package peernet

import (
	"errors"
	"net/netip"
	"sync"

	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"

	"peercompute/pkg/mesh"
)

// maxHalfOpen is how many inbound connections one address (see origin) may
// have whose handshake is not finished. Without it one address could take
// all of maxTransient and hold them, silent, until each times out.
const maxHalfOpen = 32

// halfOpen counts those connections. Loopback is not counted: who connects from this
// machine can hurt it otherwise.
type halfOpen struct {
	network.ResourceManager

	mu   sync.Mutex
	held map[netip.Prefix]int
}

func newHalfOpen(rm network.ResourceManager) *halfOpen {
	return &halfOpen{ResourceManager: rm, held: map[netip.Prefix]int{}}
}

var errHalfOpen = errors.New("too many connections from one address are in their handshake")

// OpenConnection is asked at the beginning of each connection.
func (h *halfOpen) OpenConnection(dir network.Direction, usefd bool, endpoint ma.Multiaddr) (network.ConnManagementScope, error) {
	from := origin(endpoint)
	if dir != network.DirInbound || !from.IsValid() || from.Addr().IsLoopback() {
		return h.ResourceManager.OpenConnection(dir, usefd, endpoint)
	}
	h.mu.Lock()
	if h.held[from] >= maxHalfOpen {
		h.mu.Unlock()
		return nil, errHalfOpen
	}
	h.held[from]++
	h.mu.Unlock()
	scope, err := h.ResourceManager.OpenConnection(dir, usefd, endpoint)
	if err != nil {
		h.drop(from)
		return nil, err
	}
	return &handshaking{ConnManagementScope: scope, over: sync.OnceFunc(func() { h.drop(from) })}, nil
}

func (h *halfOpen) drop(from netip.Prefix) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.held[from]--; h.held[from] <= 0 {
		delete(h.held, from)
	}
}

// handshaking is a connection's scope until it is known whose it is, or it ends.
type handshaking struct {
	network.ConnManagementScope
	over func()
}

// SetPeer is called when the handshake has shown who it is.
func (s *handshaking) SetPeer(p mesh.PeerID) error {
	err := s.ConnManagementScope.SetPeer(p)
	if err == nil {
		s.over()
	}
	return err
}

// Done is called when the connection ends.
func (s *handshaking) Done() {
	s.ConnManagementScope.Done()
	s.over()
}
