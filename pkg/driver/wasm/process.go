package wasm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"

	"peercompute/pkg/driver/wasm/internal/jail"
	"peercompute/pkg/mesh"
)

const (
	helloWait = 20 * time.Second // a machine that is busy takes long to start a process
	endWait   = time.Second      // for a worker to end by itself
	groupWait = 2 * time.Second
	beat      = time.Second // between two pings
)

// process is a running worker, seen from peerd.
type process struct {
	cmd    *exec.Cmd
	link   *link
	group  *jail.Group
	stderr tail // a worker's last words

	held, missing []string

	next atomic.Uint32

	mu      sync.Mutex
	pending map[uint32]chan frame // nil once dead
	why     string                // set by whoever ends it
	doomed  bool                  // it is being ended
	watched map[uint64]*task      // by run

	ending chan struct{} // closed when the connection has ended
	dead   chan struct{} // closed when the process is gone and waited for
}

// spawn starts a worker, lets it confine itself and waits until it is ready.
func spawn(ctx context.Context, wg *sync.WaitGroup, cmd *exec.Cmd, group *jail.Group, h hello) (*process, error) {
	conn, theirs, err := pair()
	if err != nil {
		return nil, err
	}
	p := &process{
		cmd: cmd, link: &link{c: conn}, group: group,
		pending: map[uint32]chan frame{}, watched: map[uint64]*task{}, ending: make(chan struct{}), dead: make(chan struct{}),
	}
	cmd.Env = []string{} // not nil, which would inherit
	cmd.Dir = "/"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, nil, &p.stderr
	cmd.ExtraFiles = []*os.File{theirs} // becomes linkFD
	cmd.WaitDelay = endWait
	applied, err := launch(wg, cmd, h.Root, p.dead)
	theirs.Close()
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("cannot start a WASM worker: %w", err)
	}
	p.held, p.missing = applied.Held, applied.Missing
	go p.read()
	go p.wait()
	ctx, cancel := context.WithTimeout(ctx, helloWait)
	defer cancel()
	if err := p.begin(ctx, h); err != nil {
		p.kill("it did not begin")
		<-p.dead
		return nil, fmt.Errorf("cannot start a WASM worker: %w", err)
	}
	go p.beat(h.Limits.Unresponsive)
	return p, nil
}

func (p *process) begin(ctx context.Context, h hello) error {
	// The worker does nothing before hello: all it ever uses is counted.
	if err := p.group.Add(p.cmd.Process.Pid); err != nil {
		return err
	}
	if err := jail.Sacrifice(p.cmd.Process.Pid); err != nil {
		p.missing = append(p.missing, "first to go when memory is short: "+err.Error())
	}
	var r ready
	if err := p.call(ctx, askHello, h, &r); err != nil {
		return err
	}
	p.held, p.missing = append(p.held, r.Held...), append(p.missing, r.Missing...)
	return nil
}

// question is a call that was sent and not yet answered.
type question struct {
	p     *process
	id    uint32
	reply chan frame
}

// call asks the worker and waits for its reply, into result. The caller keeps the files.
func (p *process) call(ctx context.Context, k kind, ask, result any, files ...*os.File) error {
	q, err := p.ask(k, ask, files...)
	if err != nil {
		return err
	}
	return q.wait(ctx, result)
}

// ask sends a call. Its files are sent when it returns.
func (p *process) ask(k kind, ask any, files ...*os.File) (*question, error) {
	payload, err := json.Marshal(ask)
	if err != nil {
		return nil, err
	}
	q := &question{p: p, id: p.next.Add(1), reply: make(chan frame, 1)}
	p.mu.Lock()
	switch {
	case p.pending == nil:
		p.mu.Unlock()
		return nil, p.gone()
	case len(p.pending) >= maxCalls, k == askJob && len(p.pending) >= maxJobs:
		n := len(p.pending)
		p.mu.Unlock()
		return nil, mesh.Errorf(mesh.Overloaded, "this peer runs %d jobs of yours and takes no more now", n)
	}
	p.pending[q.id] = q.reply
	p.mu.Unlock()
	if err := p.link.write(frame{kind: k, call: q.id, payload: payload, files: files}); err != nil {
		q.drop()
		return nil, p.broken(err)
	}
	return q, nil
}

func (q *question) drop() {
	q.p.mu.Lock()
	defer q.p.mu.Unlock()
	delete(q.p.pending, q.id)
}

// wait waits for the reply, into result, which may be nil.
func (q *question) wait(ctx context.Context, result any) error {
	defer q.drop()
	var f frame
	select {
	case f = <-q.reply:
	case <-q.p.dead:
		select {
		case f = <-q.reply: // its last words
		default:
			return q.p.gone()
		}
	case <-ctx.Done():
		return ctx.Err()
	}
	if f.kind == replyFail {
		return decodeError(f.payload)
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(f.payload, result); err != nil {
		return mesh.Errorf(mesh.Unavailable, "the WASM worker gave an answer that makes no sense").Because(err)
	}
	return nil
}

// tell sends what has no reply.
func (p *process) tell(k kind, ask any, files ...*os.File) error {
	payload, err := json.Marshal(ask)
	if err != nil {
		return err
	}
	if err := p.link.write(frame{kind: k, payload: payload, files: files}); err != nil {
		return p.broken(err)
	}
	return nil
}

// broken ends a worker that a frame could not be written to: half a frame may have
// been, and nothing that follows would make sense.
func (p *process) broken(err error) error {
	why := "" // the process will say
	if errors.Is(err, os.ErrDeadlineExceeded) {
		why = "it did not read its connection"
	}
	p.kill(why)
	return mesh.Errorf(mesh.Unavailable, "the WASM worker does not answer").Because(err)
}

func (p *process) gone() error {
	return mesh.Errorf(p.exit().Kind, "%s", p.epitaph())
}

// read takes replies until the connection ends.
func (p *process) read() {
	defer close(p.ending)
	for {
		f, err := p.link.read()
		if err != nil {
			why := "" // the process will say
			if errors.Is(err, errFrame) {
				why = "it broke the protocol"
			}
			if !errors.Is(err, io.EOF) {
				p.kill(why)
			}
			return
		}
		closeAll(f.files) // none is expected
		if f.kind == tellNews {
			p.hear(f.payload)
			continue
		}
		p.mu.Lock()
		reply := p.pending[f.call]
		delete(p.pending, f.call)
		p.mu.Unlock()
		if reply != nil {
			reply <- f
		}
	}
}

// hear takes news of a run. What it is not about is not kept.
func (p *process) hear(b []byte) {
	var n runNews
	if json.Unmarshal(b, &n) != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if t := p.watched[n.Run]; t != nil {
		t.idle.Store(n.Idle)
	}
}

// watch makes t hear the news of its run; stop ends that.
func (p *process) watch(t *task) (stop func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watched[t.run] = t
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.watched, t.run)
	}
}

// wait waits for the process and then for nothing of it to be left.
func (p *process) wait() {
	err := p.cmd.Wait()
	kills := p.group.Kills()
	p.link.c.Close()
	<-p.ending
	ctx, cancel := context.WithTimeout(context.Background(), groupWait)
	defer cancel()
	_ = p.group.Remove(ctx) // an empty group that stays is removed at the next start
	p.mu.Lock()
	if p.why == "" {
		switch {
		case kills > 0:
			p.why = reasonMemory
		case err != nil:
			p.why = err.Error()
		default:
			p.why = "it ended"
		}
	}
	p.pending = nil
	p.mu.Unlock()
	close(p.dead)
}

// reasonMemory is the reason of a worker that the kernel ended for want of memory.
const reasonMemory = "all guests of this peer together used more memory than they may"

// epitaph says in one line how the worker ended.
func (p *process) epitaph() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.why == "" {
		return "the WASM worker ended"
	}
	return "the WASM worker ended: " + p.why
}

// exit is what a worker's end means for one of its guests.
func (p *process) exit() mesh.Exit {
	e := mesh.Exit{Code: exitKilled, Kind: mesh.Unavailable, Reason: p.epitaph()}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.why == reasonMemory {
		e.Kind = mesh.OutOfMemory
	}
	return e
}

// kill ends the worker at once; dead is closed soon after.
func (p *process) kill(why string) {
	p.mu.Lock()
	if p.why == "" {
		p.why = why
	}
	p.doomed = true
	p.mu.Unlock()
	_ = p.cmd.Process.Kill() // it may be gone already
}

// end asks a worker without work to end, and sees to it.
func (p *process) end() {
	p.mu.Lock()
	if p.why == "" {
		p.why = "it was idle"
	}
	p.doomed = true
	p.mu.Unlock()
	_ = p.link.c.CloseWrite() // the worker sees the end of its connection
	t := time.NewTimer(endWait)
	defer t.Stop()
	select {
	case <-p.dead:
		return
	case <-t.C:
	}
	p.kill("")
	<-p.dead
}

// beat kills a worker that does not answer: whatever keeps it from that keeps all
// its guests from working as well.
func (p *process) beat(patience time.Duration) {
	t := time.NewTicker(beat)
	defer t.Stop()
	for {
		select {
		case <-p.dead:
			return
		case <-t.C:
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		err := p.call(ctx, askPing, struct{}{}, nil)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			p.kill(fmt.Sprintf("it did not answer for %s", patience))
		}
	}
}

// tail keeps the last bytes written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

const tailLen = 16 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p[max(0, len(p)-tailLen):]...)
	t.b = t.b[max(0, len(t.b)-tailLen):]
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}
