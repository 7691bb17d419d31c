package wasm

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"peercompute/pkg/driver"
	"peercompute/pkg/driver/wasm/internal/logfile"
	"peercompute/pkg/mesh"
)

// task is one run of a supervised workload.
type task struct {
	id   mesh.WorkloadID
	run  uint64
	p    *process
	http bool        // it answers requests
	idle atomic.Bool // nothing of it runs until the next request
	log  *logfile.Log

	quit chan struct{} // closed, once, when Stop has ended the run
	once sync.Once
	done chan struct{} // closed when the run has ended and its log is complete

	mu      sync.Mutex
	stopped bool // on request
	last    runStats
	exit    mesh.Exit // set before done is closed
}

var (
	_ driver.Task    = (*task)(nil)
	_ driver.Sleeper = (*task)(nil)
)

// start begins a run of w in p. It takes release over only if it succeeds.
func (d *Driver) start(ctx context.Context, w mesh.Workload, p *process, release func(), code *os.File) (*task, error) {
	call := newGuestCall(w, d.runs.Add(1))
	if call.Server && d.cfg.Burnt != nil {
		var err error
		if call.Burnt, err = d.cfg.Burnt(w.ID); err != nil {
			return nil, err
		}
	}
	log, err := logfile.Open(d.logPath(w.ID), d.cfg.Limits.Log)
	if err != nil {
		return nil, mesh.Errorf(mesh.Internal, "the log could not be opened").Because(err)
	}
	from, to, err := pair()
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	defer to.Close()
	t := &task{
		id: w.ID, run: call.Run, p: p, http: w.Spec.WithDefaults().Shape != mesh.Job, log: log,
		quit: make(chan struct{}), done: make(chan struct{}),
	}
	network, offline, err := d.network(w)
	if err != nil {
		from.Close()
		return nil, errors.Join(err, log.Close())
	}
	defer closeAll(network)
	files := append([]*os.File{code, to}, network...)
	var job *question
	t.idle.Store(call.Server)
	unwatch := p.watch(t)
	if t.http {
		err = d.compiling(ctx, p, askServe, call, files...)
	} else {
		job, err = p.ask(askJob, call, files...)
	}
	if err != nil {
		offline()
		unwatch()
		from.Close()
		return nil, errors.Join(err, log.Close())
	}
	d.mu.Lock()
	d.tasks[w.ID] = t
	d.mu.Unlock()
	d.work.Go(func() {
		defer release()
		defer unwatch()
		defer offline()
		t.follow(job, from, d.cfg.Limits.LogRate)
	})
	return t, nil
}

// follow keeps the log of a run until its end.
func (t *task) follow(job *question, from *net.UnixConn, logRate int64) {
	defer close(t.done)
	defer t.log.Close()
	defer from.Close()
	pumping, hurry := context.WithCancel(context.Background())
	defer hurry()
	var pumped sync.WaitGroup
	pumped.Go(func() {
		lines := &stamper{to: t.log, now: time.Now}
		pump(pumping, lines, from, logRate)
		_ = lines.flush() // as in pump
	})
	exit := t.await(job)
	hurry()
	// What a run wrote arrives before its end does; this is for what does not end.
	_ = from.SetReadDeadline(time.Now().Add(drainWait))
	pumped.Wait()
	t.mu.Lock()
	t.exit = exit
	stopped := t.stopped
	t.mu.Unlock()
	if exit.Reason != "" && !stopped {
		// The reason is in the Exit as well.
		_, _ = t.log.Write(stamped(nil, time.Now(), markStderr, []byte("[peerd] "+exit.Reason)))
	}
}

// await waits for the end of the run.
func (t *task) await(job *question) mesh.Exit {
	if job == nil {
		select {
		case <-t.p.dead:
			return t.p.exit()
		case <-t.quit:
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		return mesh.Exit{Kind: mesh.Canceled, Reason: "stopped", Fuel: t.last.Fuel, PeakMemory: t.last.Peak}
	}
	var exit mesh.Exit
	if err := job.wait(context.Background(), &exit); err != nil {
		exit = failedExit(t.p, err)
	}
	return sane(exit)
}

// failedExit is the exit of a job that err kept from running to its end.
func failedExit(p *process, err error) mesh.Exit {
	if p.isDead() {
		return p.exit()
	}
	e := mesh.AsError(err)
	return mesh.Exit{Code: exitKilled, Kind: e.Kind, Reason: e.Msg}
}

// Idle implements driver.Sleeper.
func (t *task) Idle() bool { return t.idle.Load() }

// ID implements driver.Task.
func (t *task) ID() mesh.WorkloadID { return t.id }

// Dial implements driver.Task: it makes a pair of sockets and gives the worker one.
func (t *task) Dial(ctx context.Context) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !t.http {
		return nil, mesh.Errorf(mesh.Unavailable, "a job has no port")
	}
	select {
	case <-t.done:
		return nil, mesh.Errorf(mesh.Unavailable, "workload %s does not run", t.id)
	default:
	}
	ours, theirs, err := pair()
	if err != nil {
		return nil, mesh.Errorf(mesh.Unavailable, "no connection could be made").Because(err)
	}
	defer theirs.Close()
	if err := t.p.tell(askConn, runCall{Run: t.run}, theirs); err != nil {
		ours.Close()
		return nil, err
	}
	return ours, nil
}

// Wait implements driver.Task.
func (t *task) Wait(ctx context.Context) (mesh.Exit, error) {
	select {
	case <-t.done:
		t.mu.Lock()
		defer t.mu.Unlock()
		return t.exit, nil
	case <-ctx.Done():
		return mesh.Exit{}, ctx.Err()
	}
}

// Stats implements driver.Task. CPU counts the time in which instances executed.
func (t *task) Stats(ctx context.Context) (mesh.Stats, error) {
	var now runStats
	select {
	case <-t.done:
		t.mu.Lock()
		defer t.mu.Unlock()
		return mesh.Stats{CPU: t.last.CPU, Fuel: max(t.last.Fuel, t.exit.Fuel)}, nil
	default:
	}
	if err := t.p.call(ctx, askStats, runCall{Run: t.run}, &now); err != nil {
		return mesh.Stats{}, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = now
	return mesh.Stats{CPU: now.CPU, Memory: now.Memory, PIDs: now.Active, Fuel: now.Fuel}, nil
}

// Stop implements driver.Task.
func (t *task) Stop(ctx context.Context, grace time.Duration) error {
	t.mu.Lock()
	t.stopped = true
	t.mu.Unlock()
	last, err := stopRun(ctx, t.p, t.run, grace, t.done)
	if err != nil {
		return err
	}
	t.mu.Lock()
	if last != nil {
		t.last = *last
	}
	t.mu.Unlock()
	t.once.Do(func() { close(t.quit) })
	select {
	case <-t.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

const (
	stopWait  = 5 * time.Second       // for a guest to notice, beyond its grace
	stopRetry = 10 * time.Millisecond // until a job that was just begun is known
)

// stopRun ends a run in p, or p as a whole if that does not work in time. done is
// closed when the run has ended.
func stopRun(ctx context.Context, p *process, run uint64, grace time.Duration, done <-chan struct{}) (*runStats, error) {
	limit, cancel := context.WithTimeout(ctx, grace+stopWait)
	defer cancel()
	for {
		select {
		case <-done:
			return nil, nil
		default:
		}
		var last runStats
		err := p.call(limit, askStop, runCall{Run: run, Grace: grace}, &last)
		switch {
		case err == nil:
			return &last, nil
		case p.isDead():
			<-p.dead
			return nil, nil
		case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
			p.kill("it did not stop a guest")
			<-p.dead
			return nil, nil
		case mesh.KindOf(err) != mesh.NotFound:
			return nil, err
		}
		select { // it has just ended, or just begun
		case <-done:
		case <-limit.Done():
		case <-time.After(stopRetry):
		}
	}
}

// pump copies a run's log to its file, at most rate bytes a second until ctx ends;
// then what is left, as fast as it comes.
func pump(ctx context.Context, log io.Writer, from io.Reader, bytesPerSecond int64) {
	buf := make([]byte, 32<<10)
	limit := rate.NewLimiter(rate.Limit(bytesPerSecond), max(len(buf), int(bytesPerSecond/4)))
	for {
		n, err := from.Read(buf)
		if n > 0 {
			_ = limit.WaitN(ctx, n) // an error means that there is no more limit
			// A full disk costs lines, and must not hold up the guest.
			_, _ = log.Write(buf[:n])
		}
		if err != nil {
			return
		}
	}
}
