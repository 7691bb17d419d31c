package gateway

import (
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

// pipeStream is a Stream over a pipe, which notes how it ended.
type pipeStream struct {
	net.Conn
	reset, closed atomic.Bool
}

func newPipeStream(t *testing.T) (s *pipeStream, far net.Conn) {
	near, far := net.Pipe()
	t.Cleanup(func() { near.Close(); far.Close() })
	return &pipeStream{Conn: near}, far
}

func (s *pipeStream) CloseWrite() error { return nil }
func (s *pipeStream) Reset()            { s.reset.Store(true); s.Conn.Close() }
func (s *pipeStream) Close() error      { s.closed.Store(true); return s.Conn.Close() }

func newTestPool() (*pool, *resets) {
	wg := new(resets)
	return newPool(wg), wg
}

func TestPoolAfterRetirement(t *testing.T) {
	p, wg := newTestPool()
	active, _ := newPipeStream(t)
	u, err := p.add(active)
	if err != nil {
		t.Fatal(err)
	}
	p.retire()
	wg.Wait()
	if !active.reset.Load() {
		t.Error("a stream in use outlives its route")
	}
	p.put(u, 0, 1<<62)
	if p.take() != nil {
		t.Error("a stream of a withdrawn route is handed out")
	}
	late, _ := newPipeStream(t)
	if _, err := p.add(late); !errors.Is(err, errRetired) {
		t.Errorf("a withdrawn route takes a new stream: %v", err)
	}
}

// What idles when the publisher says a route again is closed, and what carries a
// request is not kept after it: both may reach what is about to be stopped.
func TestPoolBeginsAnew(t *testing.T) {
	p, wg := newTestPool()
	idle, _ := newPipeStream(t)
	busy, _ := newPipeStream(t)
	u, err := p.add(idle)
	if err != nil {
		t.Fatal(err)
	}
	p.put(u, 0, 1<<62)
	b, err := p.add(busy)
	if err != nil {
		t.Fatal(err)
	}
	p.renew()
	wg.Wait()
	if !idle.closed.Load() || idle.reset.Load() || p.take() != nil {
		t.Error("an idle stream is kept, or cut")
	}
	if busy.closed.Load() || busy.reset.Load() {
		t.Fatal("a stream that carries a request is ended")
	}
	p.put(b, 0, 1<<62)
	if !busy.closed.Load() || p.take() != nil {
		t.Error("a stream to the former run is kept for another request")
	}
	fresh, _ := newPipeStream(t)
	f, err := p.add(fresh)
	if err != nil {
		t.Fatal(err)
	}
	p.put(f, 0, 1<<62)
	if p.take() != f {
		t.Error("a stream to the new run is not kept")
	}
}

func TestPoolSweep(t *testing.T) {
	p, wg := newTestPool()
	add := func(deadline int64, idle bool) *pipeStream {
		s, _ := newPipeStream(t)
		u, err := p.add(s)
		if err != nil {
			t.Fatal(err)
		}
		u.deadline.Store(deadline)
		if idle {
			p.put(u, 0, deadline)
		}
		return s
	}
	oldIdle, newIdle := add(10, true), add(100, true)
	late, inTime, unbound := add(10, false), add(100, false), add(0, false)
	p.sweep(50)
	wg.Wait()
	if !oldIdle.closed.Load() || oldIdle.reset.Load() {
		t.Error("a stream that idled too long is not closed in order")
	}
	if !late.reset.Load() {
		t.Error("a stream over its deadline goes on")
	}
	for name, s := range map[string]*pipeStream{"idle": newIdle, "in time": inTime, "without a deadline": unbound} {
		if s.closed.Load() || s.reset.Load() {
			t.Errorf("the stream %s was ended", name)
		}
	}
	if u := p.take(); u == nil || u.stream != newIdle || p.take() != nil {
		t.Error("the pool hands out another stream than the one left")
	}
}

func TestPoolKeepsFew(t *testing.T) {
	p, _ := newTestPool()
	var streams []*pipeStream
	var us []*upstream
	for range maxIdle + 5 {
		s, _ := newPipeStream(t)
		u, err := p.add(s)
		if err != nil {
			t.Fatal(err)
		}
		streams, us = append(streams, s), append(us, u)
	}
	for _, u := range us {
		p.put(u, 0, 1)
	}
	closed := 0
	for _, s := range streams {
		if s.closed.Load() {
			closed++
		}
	}
	if closed != 5 || len(p.idle) != maxIdle || len(p.all) != maxIdle {
		t.Errorf("%d closed, %d idle, %d known", closed, len(p.idle), len(p.all))
	}
}

func TestUpstreamAlive(t *testing.T) {
	for name, tc := range map[string]struct {
		far  func(net.Conn)
		want bool
	}{
		"silent": {func(net.Conn) {}, true},
		"ended":  {func(c net.Conn) { c.Close() }, false},
	} {
		s, far := newPipeStream(t)
		tc.far(far)
		u := &upstream{stream: s}
		if got := u.alive(); got != tc.want {
			t.Errorf("%s: alive is %v", name, got)
		}
		if tc.want { // and it can be read as before
			go func() { _, _ = far.Write([]byte("x")) }()
			_ = s.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, err := s.Read(make([]byte, 1)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// A route that is withdrawn while the proxy ends is still reset, and nobody waits
// for it in vain.
func TestResetsAfterWait(t *testing.T) {
	var r resets
	var ran atomic.Int32
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 100 {
			r.Go(func() { ran.Add(1) })
		}
	}()
	r.Wait()
	<-done
	r.wg.Wait()
	if n := ran.Load(); n != 100 {
		t.Errorf("%d of 100 were run", n)
	}
}
