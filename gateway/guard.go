package gateway

import (
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"peercompute/pkg/socket"
)

// guard is a listener that turns connections away over its limits, sheds clients
// that do not read, and knows when the last connection has ended.
type guard struct {
	net.Listener
	maxConns int
	maxPerIP int
	write    time.Duration

	mu    sync.Mutex
	total int
	perIP map[netip.Addr]int

	open sync.WaitGroup // connections being served
}

func newGuard(ln net.Listener, cfg ServerConfig) *guard {
	return &guard{
		Listener: ln, maxConns: cfg.MaxConns, maxPerIP: cfg.MaxConnsPerIP, write: cfg.WriteTimeout,
		perIP: map[netip.Addr]int{},
	}
}

// Accept returns the next connection within the limits; those over are reset.
func (g *guard) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		key := clientKey(clientAddr(c.RemoteAddr().String()))
		if g.enter(key) {
			return &guarded{Conn: socket.Wrap(c), guard: g, key: key}, nil
		}
		if t, ok := c.(*net.TCPConn); ok {
			_ = t.SetLinger(0)
		}
		c.Close()
	}
}

func (g *guard) enter(key netip.Addr) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.total >= g.maxConns || g.maxPerIP > 0 && g.perIP[key] >= g.maxPerIP {
		return false
	}
	g.total++
	g.perIP[key]++
	g.open.Add(1)
	return true
}

// state follows net/http, which reports a connection as closed after its
// handler has returned, except when the handler took it over.
func (g *guard) state(c net.Conn, s http.ConnState) {
	if t, ok := c.(interface{ NetConn() net.Conn }); ok { // *tls.Conn
		c = t.NetConn()
	}
	gc, ok := c.(*guarded)
	if !ok {
		return
	}
	switch s {
	case http.StateHijacked:
		gc.hijacked.Store(true)
	case http.StateClosed:
		gc.release()
	}
}

// wait returns when no connection is being served. The listener must be closed.
func (g *guard) wait() { g.open.Wait() }

// guarded is a connection that must take what is written to it in time. It sets
// the deadline at most once per quarter of that time, not before each write.
type guarded struct {
	net.Conn
	guard    *guard
	key      netip.Addr
	hijacked atomic.Bool
	once     sync.Once
	due      atomic.Int64 // the write deadline that is set, Unix ns
}

func (c *guarded) Write(b []byte) (int, error) {
	now := time.Now()
	if limit := c.guard.write; c.due.Load()-now.UnixNano() < int64(limit*3/4) {
		due := now.Add(limit)
		c.due.Store(due.UnixNano())
		if err := c.Conn.SetWriteDeadline(due); err != nil {
			return 0, err
		}
	}
	return c.Conn.Write(b)
}

// SetWriteDeadline notes the deadline that others set or clear.
func (c *guarded) SetWriteDeadline(t time.Time) error {
	c.due.Store(0)
	return c.Conn.SetWriteDeadline(t)
}

// SetDeadline notes the deadline that others set or clear.
func (c *guarded) SetDeadline(t time.Time) error {
	c.due.Store(0)
	return c.Conn.SetDeadline(t)
}

// CloseWrite half-closes the connection, for upgraded ones.
func (c *guarded) CloseWrite() error {
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return c.Conn.Close()
}

func (c *guarded) Close() error {
	err := c.Conn.Close()
	if c.hijacked.Load() {
		c.release()
	}
	return err
}

func (c *guarded) release() {
	c.once.Do(func() {
		g := c.guard
		g.mu.Lock()
		g.total--
		if g.perIP[c.key]--; g.perIP[c.key] == 0 {
			delete(g.perIP, c.key)
		}
		g.mu.Unlock()
		g.open.Done()
	})
}
