package gateway

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"peercompute/pkg/mesh"
	"peercompute/pkg/wire"
)

// Stream is one tunnel stream to a peer. A *peernet.Stream is one.
type Stream interface {
	net.Conn
	CloseWrite() error
	Reset()
}

// maxIdle bounds the streams that a pool keeps for the next request.
const maxIdle = 128

// pool holds the streams of one route. Newest first: the others may end of age.
type pool struct {
	resets   *resets
	inFlight atomic.Int64 // requests

	mu      sync.Mutex
	idle    []*upstream
	all     map[*upstream]struct{}
	era     int // of streams that may be kept for later requests
	retired bool
}

// upstream is one tunnel stream: a connection to the workload that carries one
// request at a time.
type upstream struct {
	stream Stream
	pool   *pool
	era    int           // in which it carried its first request
	limit  int64         // bytes that may still be read; guards against endless heads
	br     *bufio.Reader // nil while idle
	opened bool          // the peer's status byte has been read
	reused bool          // it served a request before

	deadline  atomic.Int64 // Unix ns after which the sweep resets it
	idleSince int64        // Unix ns; guarded by pool.mu
}

var errRetired = errors.New("the route was withdrawn")

func newPool(resets *resets) *pool {
	return &pool{resets: resets, all: map[*upstream]struct{}{}}
}

// take returns an idle stream, or nil.
func (p *pool) take() *upstream {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.idle)
	if n == 0 {
		return nil
	}
	u := p.idle[n-1]
	p.idle[n-1] = nil
	p.idle = p.idle[:n-1]
	u.reused = true
	return u
}

// add registers a new stream, so that a withdrawal finds it. It has carried nothing yet:
// which run of the workload it reaches is settled by its first request.
func (p *pool) add(s Stream) (*upstream, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.retired {
		return nil, errRetired
	}
	u := &upstream{stream: s, pool: p, era: p.era}
	p.all[u] = struct{}{}
	return u, nil
}

// put keeps a stream for the next request, which has until deadline to come.
func (p *pool) put(u *upstream, now, deadline int64) {
	p.mu.Lock()
	_, ours := p.all[u]
	if keep := ours && !p.retired && u.era == p.era && len(p.idle) < maxIdle; keep {
		u.idleSince = now
		u.deadline.Store(deadline)
		p.idle = append(p.idle, u)
		p.mu.Unlock()
		return
	}
	delete(p.all, u)
	p.mu.Unlock()
	_ = u.stream.Close()
}

// discard forgets a stream and resets it.
func (p *pool) discard(u *upstream) {
	p.mu.Lock()
	delete(p.all, u)
	p.mu.Unlock()
	u.stream.Reset()
}

// sweep closes what idled too long and resets what is over its deadline.
func (p *pool) sweep(now int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = slices.DeleteFunc(p.idle, func(u *upstream) bool {
		if u.deadline.Load() > now {
			return false
		}
		delete(p.all, u)
		p.resets.Go(func() { _ = u.stream.Close() })
		return true
	})
	for u := range p.all {
		if d := u.deadline.Load(); d != 0 && d <= now {
			p.resetLocked(u)
		}
	}
}

// renew begins an era: what idles is closed, and what carries a request is closed at
// its end. Later requests take new streams, which may reach another run of the
// workload.
func (p *pool) renew() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.era++
	for _, u := range p.idle {
		delete(p.all, u)
		p.resets.Go(func() { _ = u.stream.Close() })
	}
	p.idle = nil
}

// retire resets every stream and takes no new one, ever.
func (p *pool) retire() {
	p.mu.Lock()
	p.retired = true
	p.mu.Unlock()
	p.cut()
}

// cut resets every stream.
func (p *pool) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for u := range p.all {
		p.resetLocked(u)
	}
	p.idle = nil
}

// resetLocked resets in a goroutine of its own: to a peer whose connection is
// stuck, that can take until the connection's write deadline.
func (p *pool) resetLocked(u *upstream) {
	delete(p.all, u)
	p.resets.Go(u.stream.Reset)
}

// Read feeds the buffered reader, within the limit.
func (u *upstream) Read(b []byte) (int, error) {
	if u.limit <= 0 {
		return 0, mesh.Errorf(mesh.TooLarge, "the workload's response head is over %d bytes", maxResponseHead)
	}
	if int64(len(b)) > u.limit {
		b = b[:u.limit]
	}
	n, err := u.stream.Read(b)
	u.limit -= int64(n)
	return n, err
}

// accept reads the peer's status byte if it has not been read yet.
func (u *upstream) accept() error {
	if u.opened {
		return nil
	}
	status, err := u.br.ReadByte()
	if err != nil {
		return err
	}
	u.opened = true
	if err := wire.TunnelAnswer(status); err != nil {
		return &refusal{err}
	}
	return nil
}

// refusal says that the peer answered and would not open the tunnel.
type refusal struct{ error }

func (r *refusal) Unwrap() error { return r.error }

// alive reports whether an idle stream still looks open: nothing came on it and
// it has not ended. A request that cannot be repeated is worth the look.
func (u *upstream) alive() bool {
	_ = u.stream.SetReadDeadline(time.Unix(1, 0))
	var one [1]byte
	n, err := u.stream.Read(one[:])
	_ = u.stream.SetReadDeadline(time.Time{})
	if n > 0 || err == nil || errors.Is(err, io.EOF) {
		return false
	}
	var timeout interface{ Timeout() bool }
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}

// Dialer opens a tunnel stream to a peer that is connected now. It must not
// wait for one that is not.
type Dialer func(ctx context.Context, publisher mesh.PeerID) (Stream, error)

// resets runs resets of streams in the background until it is waited for, and
// those that come after that on the spot.
type resets struct {
	mu     sync.Mutex
	waited bool
	wg     sync.WaitGroup
}

// Go runs f.
func (r *resets) Go(f func()) {
	r.mu.Lock()
	if r.waited {
		r.mu.Unlock()
		f()
		return
	}
	r.wg.Go(f)
	r.mu.Unlock()
}

// Wait waits for all that was begun before.
func (r *resets) Wait() {
	r.mu.Lock()
	r.waited = true
	r.mu.Unlock()
	r.wg.Wait()
}
