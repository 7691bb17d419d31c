package wasm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tetratelabs/wazero"

	"peercompute/pkg/driver/wasm/internal/jail"
	"peercompute/pkg/mesh"
)

// linkFD is the file descriptor on which a worker finds its connection to peerd.
const linkFD = 3

// How many calls a worker has under way at once. peerd sees to it, and keeps room
// beside the jobs for what is asked about them.
const (
	maxCalls = 512
	maxJobs  = 384
)

// longCompile is how long it takes to compile what leaves much memory behind.
const longCompile = 100 * time.Millisecond

// WorkerMain is the life of a worker process: it confines itself, does what peerd
// asks, and returns when peerd closes the connection or is gone. The command that
// Config.Command names must call it first thing and exit when it returns.
func WorkerMain(ctx context.Context) error {
	f := os.NewFile(linkFD, "peerd")
	if f == nil {
		return errors.New("a WASM worker is started by peerd, not by hand")
	}
	c, err := unixConn(f)
	if err != nil {
		return fmt.Errorf("a WASM worker is started by peerd, not by hand: %w", err)
	}
	w := &worker{link: &link{c: c}, runs: map[uint64]run{}}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if err := w.begin(); err != nil {
		return err
	}
	err = w.listen()
	// Whoever waits for a guest waits in vain: peerd is gone. Ending the process
	// ends all guests at once.
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// worker runs the guests of one peer.
type worker struct {
	link    *link
	limits  Limits
	modules *modules
	shared  *budget
	conns   atomic.Int64 // open to services

	mu   sync.Mutex
	runs map[uint64]run
}

// run is a service or a job.
type run interface {
	shutdown(grace time.Duration)
	stats() runStats
}

// begin waits for hello, gives up all rights and prepares the runtime.
func (w *worker) begin() error {
	f, err := w.link.read()
	if err != nil {
		return fmt.Errorf("no hello from peerd: %w", err)
	}
	closeAll(f.files)
	var h hello
	if f.kind != askHello {
		return errFrame
	}
	if err := json.Unmarshal(f.payload, &h); err != nil {
		return fmt.Errorf("%w: %w", errFrame, err)
	}
	w.limits = h.Limits.withDefaults()
	// The compiler's and our own heap stays well below what the guests leave over;
	// guests' memory is outside it.
	debug.SetMemoryLimit(w.limits.WorkerMemory / 2)
	held, err := jail.Confine(jail.Config{Root: h.Root, UID: h.UID, Files: uint64(w.limits.Connections) + 4*maxCalls})
	if err != nil {
		return w.link.write(frame{kind: replyFail, call: f.call, payload: encodeError(err)})
	}
	w.shared = &budget{limit: w.limits.WorkerMemory}
	w.modules, err = newModules(context.Background(), filepath.Join(held.Root, "cache"), w.limits.Module, wazero.NewRuntimeConfig())
	if err != nil {
		return w.link.write(frame{kind: replyFail, call: f.call, payload: encodeError(err)})
	}
	return w.reply(f.call, ready{Held: held.Held, Missing: held.Missing}, nil)
}

// listen takes calls until the connection ends.
func (w *worker) listen() error {
	room := make(chan struct{}, maxCalls)
	for {
		f, err := w.link.read()
		if err != nil {
			return err
		}
		switch f.kind {
		case askPing: // answered here: the answer says that this loop turns
			closeAll(f.files)
			if err := w.reply(f.call, struct{}{}, nil); err != nil {
				return err
			}
			continue
		case askConn: // in order, and without a wait
			w.connect(f)
			continue
		}
		room <- struct{}{}
		go func() {
			defer func() { <-room }()
			began := time.Now()
			v, err := w.handle(f)
			// An error means that peerd is gone, which listen sees as well.
			_ = w.reply(f.call, v, err)
			if f.kind == askLoad && time.Since(began) > longCompile {
				debug.FreeOSMemory() // a compiler's heap is many times what a service needs
			}
		}()
	}
}

func (w *worker) reply(call uint32, v any, err error) error {
	if err != nil {
		return w.link.write(frame{kind: replyFail, call: call, payload: encodeError(err)})
	}
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return w.link.write(frame{kind: replyOK, call: call, payload: b})
}

// handle does what a call asks, and closes its files.
func (w *worker) handle(f frame) (any, error) {
	defer func() { closeAll(f.files) }()
	need := func(files int, v any) error {
		if len(f.files) != files {
			return fmt.Errorf("%w: %d files for a call of kind %d", errFrame, len(f.files), f.kind)
		}
		return json.Unmarshal(f.payload, v)
	}
	switch f.kind {
	case askLoad:
		var c loadCall
		if err := need(1, &c); err != nil {
			return nil, err
		}
		return w.load(c, f.files[0])
	case askServe:
		var c guestCall
		if err := json.Unmarshal(f.payload, &c); err != nil {
			return nil, err
		}
		if err := need(2+b2i(c.HTTP), &c); err != nil {
			return nil, err
		}
		return w.serve(c, f.files[0], f.files[1], f.files[2:])
	case askJob:
		var c guestCall
		if err := json.Unmarshal(f.payload, &c); err != nil {
			return nil, err
		}
		if err := need(2+b2i(c.Attached)+b2i(c.HTTP), &c); err != nil {
			return nil, err
		}
		return w.job(c, f.files)
	case askStop, askStats:
		var c runCall
		if err := need(0, &c); err != nil {
			return nil, err
		}
		r, err := w.find(c.Run)
		if err != nil {
			return nil, err
		}
		if f.kind == askStop {
			r.shutdown(max(0, c.Grace))
			w.forget(c.Run)
		}
		return r.stats(), nil
	}
	return nil, fmt.Errorf("%w: kind %d", errFrame, f.kind)
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// news tells peerd of a run. An error means that peerd is gone, which listen sees.
func (w *worker) news(n runNews) {
	if b, err := json.Marshal(n); err == nil {
		_ = w.link.write(frame{kind: tellNews, payload: b})
	}
}

func (w *worker) load(c loadCall, f *os.File) (any, error) {
	m, err := w.modules.acquire(context.Background(), c.Digest, f)
	if err != nil {
		return nil, err
	}
	w.modules.release(context.Background(), m)
	return struct{}{}, nil
}

func (w *worker) serve(c guestCall, code, log *os.File, network []*os.File) (any, error) {
	m, err := w.modules.acquire(context.Background(), c.Digest, code)
	if err != nil {
		return nil, err
	}
	to, err := unixConn(log)
	if err != nil {
		w.modules.release(context.Background(), m)
		return nil, err
	}
	reach, err := remote(network)
	if err != nil {
		to.Close()
		w.modules.release(context.Background(), m)
		return nil, err
	}
	var s *service
	var r run
	if c.Server {
		v := newServer(c, w.limits, m, w.shared, &lineLog{c: to}, func(idle bool) { w.news(runNews{c.Run, idle}) })
		s, r = v.service, v
	} else {
		s = newService(c, w.limits, m, w.shared, &lineLog{c: to})
		r = s
	}
	s.net = reach
	s.http.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			w.conns.Add(-1)
		}
	}
	if err := w.add(c.Run, r); err != nil {
		s.net.Close()
		s.log.close()
		w.modules.release(context.Background(), m)
		return nil, err
	}
	go func() {
		s.serve()
		s.net.Close()
		s.log.close()
		w.modules.release(context.Background(), m)
	}()
	if v, ok := r.(*server); ok {
		if err := v.first(); err != nil {
			v.shutdown(0)
			w.forget(c.Run)
			return nil, err
		}
	}
	return struct{}{}, nil
}

func (w *worker) job(c guestCall, files []*os.File) (any, error) {
	j := newJob(c, w.shared)
	if err := w.add(c.Run, j); err != nil {
		return nil, err
	}
	defer w.forget(c.Run)
	defer j.end()
	first, err := unixConn(files[1])
	if err != nil {
		return nil, err
	}
	defer first.Close()
	m, err := w.modules.acquire(j.ctx, c.Digest, files[0])
	if err != nil {
		return nil, err
	}
	defer w.modules.release(context.Background(), m)
	if c.HTTP {
		if j.net, err = remote(files[len(files)-1:]); err != nil {
			return nil, err
		}
		defer j.net.Close()
	}
	if !c.Attached {
		return j.logged(m, &lineLog{c: first}), nil
	}
	errs, err := unixConn(files[2])
	if err != nil {
		return nil, err
	}
	defer errs.Close()
	return j.attached(m, first, errs)
}

// connect hands a connection to a service. It is closed if the service is not
// there, or if there are too many: a worker that ran out of file descriptors
// could take no calls.
func (w *worker) connect(f frame) {
	defer func() { closeAll(f.files) }()
	var c runCall
	if len(f.files) != 1 || json.Unmarshal(f.payload, &c) != nil {
		return
	}
	r, err := w.find(c.Run)
	if err != nil {
		return
	}
	var s *service
	switch v := r.(type) {
	case *service:
		s = v
	case *server:
		s = v.service
	default:
		return
	}
	conn, err := unixConn(f.files[0])
	if err != nil {
		return
	}
	if w.conns.Add(1) > int64(w.limits.Connections) || !s.conns.give(conn) {
		w.conns.Add(-1)
		conn.Close()
	}
}

func (w *worker) add(id uint64, r run) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.runs[id]; ok {
		return fmt.Errorf("%w: run %d exists", errFrame, id)
	}
	w.runs[id] = r
	return nil
}

func (w *worker) find(id uint64) (run, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r, ok := w.runs[id]; ok {
		return r, nil
	}
	return nil, mesh.Errorf(mesh.NotFound, "no such run")
}

func (w *worker) forget(id uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.runs, id)
}
