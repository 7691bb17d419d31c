package wasm

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"peercompute/pkg/driver/wasm/internal/jail"
	"peercompute/pkg/mesh"
)

// owner is a peer that has guests here, and the worker that runs them.
type owner struct {
	d    *Driver
	name string // of its directory

	turn chan struct{} // holds one token: one goroutine starts or ends the worker

	mu     sync.Mutex
	proc   *process // may be dead
	uses   int
	idle   *time.Timer // runs while uses is 0
	closed bool
}

// worker is the running worker of a peer, started if need be. The caller calls
// release, once, when it has no more use for it.
func (d *Driver) worker(ctx context.Context, id mesh.PeerID) (p *process, release func(), err error) {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil, nil, mesh.Errorf(mesh.Unavailable, "the WASM driver is closed")
	}
	o := d.owners[id]
	if o == nil {
		o = &owner{d: d, name: shortHash(string(id)), turn: make(chan struct{}, 1)}
		d.owners[id] = o
	}
	d.mu.Unlock()
	p, err = o.acquire(ctx)
	if err != nil {
		return nil, nil, err
	}
	return p, sync.OnceFunc(o.release), nil
}

func (o *owner) acquire(ctx context.Context) (*process, error) {
	select {
	case o.turn <- struct{}{}:
		defer func() { <-o.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	o.mu.Lock()
	if o.closed {
		o.mu.Unlock()
		return nil, mesh.Errorf(mesh.Unavailable, "the WASM driver is closed")
	}
	p := o.proc
	o.uses++
	if o.idle != nil {
		o.idle.Stop()
	}
	o.mu.Unlock()
	if p != nil && !p.isDead() {
		return p, nil
	}
	p, err := o.start(ctx)
	if err != nil {
		o.release()
		return nil, err
	}
	o.mu.Lock()
	o.proc = p
	o.mu.Unlock()
	return p, nil
}

// isDead reports whether the worker can take no more work.
func (p *process) isDead() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.doomed || p.pending == nil
}

func (o *owner) release() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.uses--; o.uses > 0 || o.closed {
		return
	}
	if o.idle == nil {
		o.idle = time.AfterFunc(o.d.cfg.Limits.Idle, o.retire)
		return
	}
	o.idle.Reset(o.d.cfg.Limits.Idle)
}

// retire ends a worker that still has no work.
func (o *owner) retire() {
	o.turn <- struct{}{} // held for as long as it takes to start or end one worker
	defer func() { <-o.turn }()
	o.mu.Lock()
	p := o.proc
	if o.uses > 0 || o.closed || p == nil {
		o.mu.Unlock()
		return
	}
	o.proc = nil
	o.mu.Unlock()
	p.end()
}

// close ends the worker with all that it does.
func (o *owner) close() {
	o.mu.Lock()
	o.closed = true
	if o.idle != nil {
		o.idle.Stop()
	}
	o.mu.Unlock()
	o.turn <- struct{}{}
	defer func() { <-o.turn }()
	o.mu.Lock()
	p := o.proc
	o.proc = nil
	o.mu.Unlock()
	if p != nil {
		p.kill("peerd ends")
		<-p.dead
	}
}

// start makes the owner's directory and its memory group, and starts a worker.
func (o *owner) start(ctx context.Context) (*process, error) {
	began := time.Now()
	root := filepath.Join(o.d.cfg.Dir, "owners", o.name)
	uid, err := o.directory(root)
	if err != nil {
		return nil, fmt.Errorf("cannot start a WASM worker: %w", err)
	}
	group, err := jail.NewGroup(o.d.cfg.GroupParent, o.d.groupName(o.name), o.d.cfg.Limits.WorkerMemory+workerOverhead)
	if err != nil {
		o.d.cfg.Log.Debug("a WASM worker has no memory group", "reason", err)
	}
	cmd := o.d.cfg.Command()
	cmd.SysProcAttr = workerAttributes()
	p, err := spawn(ctx, &o.d.work, cmd, group, hello{Root: root, UID: uid, Limits: o.d.cfg.Limits})
	if err != nil {
		gctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), groupWait)
		defer cancel()
		return nil, errors.Join(err, group.Remove(gctx))
	}
	o.d.cfg.Log.Info("WASM worker started", "owner", o.name, "pid", p.cmd.Process.Pid, "after", time.Since(began), "confined", p.held, "missing", p.missing)
	o.d.work.Go(func() {
		<-p.dead
		o.d.cfg.Log.Info("WASM worker ended", "owner", o.name, "pid", p.cmd.Process.Pid, "reason", p.epitaph(), "stderr", p.stderr.String())
	})
	return p, nil
}

// workerOverhead is what a worker may use besides its guests' memory, in bytes:
// the compiler above all.
const workerOverhead = 512 << 20

// firstUID is the first of the user IDs that workers get where peerd is root, so
// that nothing else on the machine is theirs. Owners differ, but for a collision,
// which what else confines a worker has to bear.
const firstUID = 0x50000000

// directory makes the one directory that a worker sees, and says as which user.
func (o *owner) directory(root string) (uid int, err error) {
	cache := filepath.Join(root, "cache")
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return 0, err
	}
	if err := prune(cache, o.d.cfg.Limits.WorkerCache); err != nil {
		return 0, err
	}
	if os.Geteuid() != 0 {
		return 0, nil
	}
	sum, err := hex.DecodeString(o.name)
	if err != nil {
		return 0, err
	}
	uid = firstUID + int(binary.BigEndian.Uint32(sum)>>8)
	err = chownAll(root, uid)
	if errors.Is(err, syscall.EINVAL) { // no such user in this user namespace
		uid = jail.Nobody
		err = chownAll(root, uid)
	}
	return uid, err
}

// launch starts cmd from a thread of its own that sees as little as the worker
// will, and that lives as long as the worker: the kernel ends a worker when the
// thread that started it ends, which for another thread of Go could be at any time.
// The thread ends, and launch's goroutine with it, when over is closed.
func launch(wg *sync.WaitGroup, cmd *exec.Cmd, root string, over <-chan struct{}) (jail.Applied, error) {
	type result struct {
		jail.Applied
		err error
	}
	started := make(chan result, 1)
	wg.Go(func() {
		runtime.LockOSThread() // never unlocked: nobody else may get this thread
		a, err := jail.RestrictThread(root, cmd.Path)
		if err == nil {
			err = cmd.Start()
		}
		started <- result{a, err}
		if err == nil {
			<-over
		}
	})
	r := <-started
	return r.Applied, r.err
}
