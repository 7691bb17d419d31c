package publish

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"peercompute/pkg/wire"
)

// bufferSize is what one direction of a splice holds at most, in bytes.
const bufferSize = 64 << 10

// splice copies bytes between a tunnel stream and a workload's connection.
type splice struct {
	tunnels *Tunnels
	stream  Stream
	moved   atomic.Int64 // when a byte last moved, Unix ns
	half    atomic.Bool  // one direction has ended
}

// run returns when both directions have ended. The stream is left closed or
// reset, the connection is the caller's to close.
func (sp *splice) run(ctx context.Context, conn net.Conn) {
	s := sp.stream
	if _, err := s.Write([]byte{wire.TunnelOpen}); err != nil {
		s.Reset()
		return
	}
	sp.touch()
	end := func() {
		s.Reset()
		conn.Close()
	}
	stopIdle := sp.watchIdle(end)
	defer stopIdle()
	stopCtx := context.AfterFunc(ctx, end)
	defer stopCtx()

	var wg sync.WaitGroup
	wg.Go(func() {
		switch err := sp.copy(newSink(sp, conn), s); {
		case err == nil:
			closeWrite(conn)
		case errors.As(err, new(writeError)):
			// The workload takes no more, but its answer may still be on the
			// way: the other direction goes on.
		default:
			conn.Close() // the gateway gave up
		}
		sp.half.Store(true)
	})
	if err := sp.copy(s, conn); err != nil {
		// A cut answer must not look like a whole one.
		end()
	} else {
		_ = s.CloseWrite()
	}
	sp.half.Store(true)
	wg.Wait()
}

// touch notes that a byte moved.
func (sp *splice) touch() { sp.moved.Store(time.Now().UnixNano()) }

type writeError struct{ error }

func (e writeError) Unwrap() error { return e.error }

// copy moves bytes from src to dst until src ends, which is no error.
func (sp *splice) copy(dst io.Writer, src io.Reader) error {
	buf := sp.tunnels.buffers.Get().(*[bufferSize]byte)
	defer sp.tunnels.buffers.Put(buf)
	read := src.Read
	if to, ok := dst.(*sink); ok {
		read = to.read
	}
	for {
		n, err := read(buf[:])
		if n > 0 {
			sp.touch()
			if _, err := dst.Write(buf[:n]); err != nil {
				return writeError{err}
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// watchIdle calls end once nothing has moved for too long. One timer per splice
// that re-arms itself costs less than a deadline set before each read.
func (sp *splice) watchIdle(end func()) (stop func()) {
	var mu sync.Mutex
	var timer *time.Timer
	stopped := false
	limit := func() time.Duration {
		if sp.half.Load() {
			return sp.tunnels.cfg.LingerTimeout
		}
		return sp.tunnels.cfg.IdleTimeout
	}
	// It must look at least as often as the shorter limit, which may come to
	// hold at any moment.
	every := min(sp.tunnels.cfg.LingerTimeout, sp.tunnels.cfg.IdleTimeout)
	check := func() {
		idle := time.Since(time.Unix(0, sp.moved.Load()))
		if idle >= limit() {
			end()
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if !stopped {
			timer.Reset(min(every, limit()-idle))
		}
	}
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(every, check)
	return func() {
		mu.Lock()
		defer mu.Unlock()
		stopped = true
		timer.Stop()
	}
}

func closeWrite(c net.Conn) {
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		_ = h.CloseWrite()
		return
	}
	// Without half-close the workload cannot be told; it ends by the linger limit.
}
