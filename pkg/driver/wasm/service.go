package wasm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"peercompute/pkg/driver/wasm/internal/cgi"
	"peercompute/pkg/driver/wasm/internal/fetch"
	"peercompute/pkg/mesh"
)

// Bounds of one request to a service.
const (
	maxRequestHead = 64 << 10 // bytes
	maxUnsized     = 1 << 20  // bytes of a body without Content-Length, which CGI cannot stream
	headWait       = 10 * time.Second
	idleWait       = 2 * time.Minute
	ioSlack        = 2 * time.Second // for the last bytes, after the guest's time
)

// service runs one instance of a module for each HTTP request.
type service struct {
	figures
	call   guestCall
	limits Limits
	module *module
	shared *budget
	log    *lineLog
	net    *fetch.Remote // what its guests may reach; nil = nothing
	pace   *pace

	ctx   context.Context // of all requests; ends when the service is stopped
	stop  context.CancelCauseFunc
	slots chan struct{} // one token for each running instance
	queue chan struct{} // one token for each running or waiting request
	conns *connListener
	http  *http.Server
	done  chan struct{} // closed when Serve has returned

	reply func(http.ResponseWriter, *http.Request) // to one request that has its turn
	after func()                                   // ends what outlives requests
}

// figures are what a run has used so far.
type figures struct {
	rest   int64        // bytes that the module takes while no instance runs
	cpu    atomic.Int64 // ns
	fuel   atomic.Uint64
	peak   atomic.Int64 // bytes of the largest instance
	active atomic.Int64
	memory atomic.Int64 // bytes of all instances running now
}

func (f *figures) add(o outcome) {
	f.cpu.Add(int64(o.cpu))
	f.fuel.Add(o.Fuel - min(o.told, o.Fuel))
	for old := f.peak.Load(); o.PeakMemory > old && !f.peak.CompareAndSwap(old, o.PeakMemory); old = f.peak.Load() {
	}
}

func (f *figures) stats() runStats {
	return runStats{
		CPU: time.Duration(f.cpu.Load()), Memory: f.rest + f.memory.Load(), Peak: f.peak.Load(), Fuel: f.fuel.Load(), Active: f.active.Load(),
	}
}

func newService(c guestCall, l Limits, m *module, shared *budget, log *lineLog) *service {
	ctx, stop := context.WithCancelCause(context.Background())
	atOnce := c.Concurrency
	if atOnce <= 0 {
		atOnce = l.Concurrency
	}
	s := &service{
		figures: figures{rest: m.size},
		call:    c, limits: l, module: m, shared: shared, log: log,
		pace: &pace{milli: c.MilliCPU, now: time.Now, last: time.Now()},
		ctx:  ctx, stop: stop,
		slots: make(chan struct{}, atOnce),
		queue: make(chan struct{}, atOnce+l.Queue),
		conns: newConnListener(),
		done:  make(chan struct{}),
	}
	s.reply = s.answer
	s.http = &http.Server{
		Handler:           s,
		ReadHeaderTimeout: headWait,
		IdleTimeout:       idleWait,
		MaxHeaderBytes:    maxRequestHead,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), // of clients' mistakes
	}
	return s
}

// serve answers requests until shutdown.
func (s *service) serve() {
	defer close(s.done)
	_ = s.http.Serve(s.conns) // ends with ErrServerClosed, after shutdown
}

// shutdown takes no more connections and lets running requests end within grace,
// then ends them. When it returns, no instance runs.
func (s *service) shutdown(grace time.Duration) {
	s.http.SetKeepAlivesEnabled(false)
	s.conns.Close()
	t := time.NewTimer(grace)
	defer t.Stop()
	for range cap(s.queue) { // whoever holds all tokens is alone
		select {
		case s.queue <- struct{}{}:
			continue
		default:
		}
		select {
		case s.queue <- struct{}{}:
		case <-t.C:
			s.stop(errStopped)
			s.queue <- struct{}{} // instances look at their limits at each slice
		}
	}
	s.stop(errStopped)
	if s.after != nil {
		s.after()
	}
	s.http.Close() // connections without a request
	<-s.done
}

// ServeHTTP implements http.Handler.
func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Deadlines outlive a request: the one before on this connection left its own.
	// Setting one fails only where a connection has none; ours has.
	last := time.Now().Add(s.limits.QueueWait + s.call.Timeout + ioSlack)
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(last)
	_ = rc.SetWriteDeadline(last)
	select {
	case s.queue <- struct{}{}:
		defer func() { <-s.queue }()
	default:
		busy(w, "too many requests wait")
		return
	}
	if !s.slot(r.Context()) {
		busy(w, "no instance became free in time")
		return
	}
	defer func() { <-s.slots }()
	s.reply(w, r)
}

// slot waits for an instance to be free.
func (s *service) slot(ctx context.Context) bool {
	select {
	case s.slots <- struct{}{}:
		return true
	default:
	}
	t := time.NewTimer(s.limits.QueueWait)
	defer t.Stop()
	select {
	case s.slots <- struct{}{}:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	return false
}

// answer runs one instance for one request.
func (s *service) answer(w http.ResponseWriter, r *http.Request) {
	deadline := time.Now().Add(s.call.Timeout)
	ctx, cancel := context.WithDeadlineCause(r.Context(), deadline, errDeadline)
	defer cancel()
	body, length, err := sizedBody(r)
	if err != nil {
		refuse(w, err)
		return
	}
	if r.ContentLength > 0 {
		_ = http.NewResponseController(w).EnableFullDuplex() // a program may answer while it still reads
	}
	res := cgi.NewResponse(w)
	stderr := s.log.writer(mesh.Stderr)
	s.active.Add(1)
	out := s.module.run(instance{
		name: s.call.Name, args: s.call.Args, env: append(programEnv(s.call.Env), cgi.Env(r, length)...),
		stdin: body, stdout: res, stderr: stderr,
		memory: s.call.Memory, scratch: s.call.Scratch, wall: s.call.Wall, net: s.net, shared: s.shared, now: &s.memory,
		meter: newMeter(ctx, deadline, s.pace, s.call.Fuel),
	})
	s.active.Add(-1)
	stderr.flush()
	s.add(out)
	s.finish(w, r, res, out)
}

// finish completes the answer, or says what went wrong if it still can; else the
// connection is cut, so that nobody takes half an answer for a whole one.
func (s *service) finish(w http.ResponseWriter, r *http.Request, res *cgi.Response, out outcome) {
	err := res.Finish()
	if out.Kind == 0 && err == nil {
		return
	}
	why := out.Reason
	if out.Kind == 0 {
		why = err.Error()
		if out.Code != 0 {
			why = fmt.Sprintf("exit status %d, %s", out.Code, why)
		}
	}
	if r.Context().Err() == nil {
		s.log.note("%s %s: %s\n%s", r.Method, clip(r.URL.Path, 200), why, out.Trace)
	}
	if res.Started() {
		panic(http.ErrAbortHandler)
	}
	for k := range w.Header() {
		w.Header().Del(k)
	}
	status := http.StatusBadGateway // the program answered nonsense, or nothing
	switch out.Kind {
	case mesh.Timeout:
		status = http.StatusGatewayTimeout
	case mesh.OutOfFuel, mesh.OutOfMemory:
		status = http.StatusInternalServerError
	case mesh.Canceled:
		status = http.StatusServiceUnavailable
	}
	http.Error(w, "This program did not answer: "+why+".", status)
}

// sizedBody is the body and its length. CGI tells a program the length before it
// reads, so a body of unknown length is read first, as far as that goes.
func sizedBody(r *http.Request) (io.Reader, int64, error) {
	if r.ContentLength >= 0 {
		return r.Body, r.ContentLength, nil
	}
	b, err := io.ReadAll(io.LimitReader(r.Body, maxUnsized+1))
	switch {
	case err != nil:
		return nil, 0, mesh.Errorf(mesh.Invalid, "the body of the request could not be read").Because(err)
	case len(b) > maxUnsized:
		return nil, 0, mesh.Errorf(mesh.TooLarge, "a body over %d bytes needs a Content-Length here", maxUnsized)
	}
	return bytes.NewReader(b), int64(len(b)), nil
}

func refuse(w http.ResponseWriter, err error) {
	var e *mesh.Error
	status := http.StatusBadRequest
	if errors.As(err, &e) && e.Kind == mesh.TooLarge {
		status = http.StatusLengthRequired
	}
	w.Header().Set("Connection", "close") // the body was not read
	http.Error(w, mesh.AsError(err).Msg, status)
}

func busy(w http.ResponseWriter, why string) {
	w.Header().Set("Retry-After", strconv.Itoa(1))
	http.Error(w, "This service is busy: "+why+".", http.StatusServiceUnavailable)
}

// programEnv is the deployer's environment without what would pass for a fact
// about the request.
func programEnv(env []string) []string {
	kept := make([]string, 0, len(env)+32)
	for _, kv := range env {
		if k, _, ok := strings.Cut(kv, "="); ok && !cgi.Reserved(k) {
			kept = append(kept, kv)
		}
	}
	return kept
}

// connListener hands connections that peerd passed in to the HTTP server.
type connListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newConnListener() *connListener {
	return &connListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *connListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// give takes c over; it reports false, and c stays the caller's, once closed.
func (l *connListener) give(c net.Conn) bool {
	select {
	case l.conns <- c:
		return true
	case <-l.closed:
		return false
	}
}

func (l *connListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *connListener) Addr() net.Addr { return &net.UnixAddr{Net: "unix", Name: "passed"} }
