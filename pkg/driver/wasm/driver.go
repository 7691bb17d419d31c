package wasm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"peercompute/pkg/driver"
	"peercompute/pkg/driver/wasm/internal/jail"
	"peercompute/pkg/driver/wasm/internal/logfile"
	"peercompute/pkg/mesh"
)

// Driver runs WASM workloads. Close it when done.
type Driver struct {
	cfg  Config
	runs atomic.Uint64

	mu     sync.Mutex
	closed bool
	owners map[mesh.PeerID]*owner
	tasks  map[mesh.WorkloadID]*task // the latest run of each supervised workload
	work   sync.WaitGroup            // goroutines of tasks
}

var (
	_ driver.Driver = (*Driver)(nil)
	_ driver.Runner = (*Driver)(nil)
)

// New checks cfg and prepares its directory. It starts nothing: workers start when
// there is work for them.
func New(cfg Config) (*Driver, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("cannot make a WASM driver: %w", err)
	}
	cfg.Limits = cfg.Limits.withDefaults()
	dir, err := filepath.Abs(cfg.Dir) // workers have another working directory
	if err != nil {
		return nil, fmt.Errorf("cannot make a WASM driver: %w", err)
	}
	cfg.Dir = dir
	d := &Driver{cfg: cfg, owners: map[mesh.PeerID]*owner{}, tasks: map[mesh.WorkloadID]*task{}}
	for _, sub := range []string{"", "logs", "owners"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, fmt.Errorf("cannot make a WASM driver: %w", err)
		}
	}
	// It may have been there before, with other rights.
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make a WASM driver: %w", err)
	}
	d.removeStale()
	return d, nil
}

// removeStale deletes what a peerd that was killed may have left: its workers died
// with it, their memory groups did not.
func (d *Driver) removeStale() {
	entries, err := os.ReadDir(filepath.Join(d.cfg.Dir, "owners"))
	if err != nil {
		return
	}
	mine := map[string]bool{}
	for _, e := range entries {
		mine[d.groupName(e.Name())] = true
	}
	jail.RemoveStale(d.cfg.GroupParent, func(name string) bool { return mine[name] })
}

// groupName is the name of the memory group of an owner's worker. Several peerds
// may have the same owner and the same parent group.
func (d *Driver) groupName(owner string) string { return shortHash(d.cfg.Dir + "\x00" + owner) }

// Hardening lists what confines workers elsewhere and is missing on this machine,
// one line each; empty means nothing is.
func (d *Driver) Hardening() []string { return jail.Missing(d.cfg.GroupParent) }

// Close ends all workers, and with them all guests, and waits for them.
func (d *Driver) Close() error {
	d.mu.Lock()
	d.closed = true
	owners := d.owners
	d.owners = map[mesh.PeerID]*owner{}
	d.mu.Unlock()
	for _, o := range owners {
		o.close()
	}
	d.work.Wait()
	return nil
}

// Prepare compiles the module, which takes seconds for a large one that this
// owner's worker has not seen before.
func (d *Driver) Prepare(ctx context.Context, w mesh.Workload, progress func(mesh.Progress)) (string, error) {
	f, err := d.open(w.Spec.Digest)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", mesh.Errorf(mesh.Internal, "the module could not be read").Because(err)
	}
	digest, size := w.Spec.Digest, info.Size() // which the worker holds it against before it compiles it
	if progress != nil {
		progress(mesh.Progress{What: "compiling " + w.Spec.Name, Total: size})
	}
	p, release, err := d.worker(ctx, w.Owner)
	if err != nil {
		return "", err
	}
	defer release()
	if err := d.compiling(ctx, p, askLoad, loadCall{Digest: digest}, f); err != nil {
		return "", err
	}
	if progress != nil {
		progress(mesh.Progress{What: "compiling " + w.Spec.Name, Done: size, Total: size})
	}
	return digest, nil
}

// compiling is a call that may compile a module. A compiler that takes longer than
// it may is ended, and its worker with it: there is no other way.
func (d *Driver) compiling(ctx context.Context, p *process, k kind, ask any, files ...*os.File) error {
	limit, cancel := context.WithTimeout(ctx, d.cfg.Limits.Compile)
	defer cancel()
	err := p.call(limit, k, ask, nil, files...)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		p.kill(fmt.Sprintf("a module took over %s to compile", d.cfg.Limits.Compile))
		return mesh.Errorf(mesh.TooLarge, "the module took over %s to compile", d.cfg.Limits.Compile)
	}
	return err
}

func (d *Driver) open(digest string) (*os.File, error) {
	path, err := d.cfg.Module(digest)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, mesh.Errorf(mesh.NotFound, "the module %s is not here", digest).WithHint("deploy again: the module is sent along").Because(err)
	}
	return f, nil
}

// Start implements driver.Driver.
func (d *Driver) Start(ctx context.Context, w mesh.Workload) (driver.Task, error) {
	if err := d.stopEarlier(ctx, w.ID); err != nil {
		return nil, err
	}
	f, err := d.open(w.Spec.Digest)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p, release, err := d.worker(ctx, w.Owner)
	if err != nil {
		return nil, err
	}
	t, err := d.start(ctx, w, p, release, f)
	if err != nil {
		release()
		return nil, err
	}
	return t, nil
}

// stopEarlier ends an earlier run of the same workload.
func (d *Driver) stopEarlier(ctx context.Context, id mesh.WorkloadID) error {
	d.mu.Lock()
	t := d.tasks[id]
	d.mu.Unlock()
	if t == nil {
		return nil
	}
	if err := t.Stop(ctx, 0); err != nil {
		return fmt.Errorf("cannot stop the earlier run: %w", err)
	}
	return nil
}

// Adopt finds the guests of this very driver: they end with the process that started
// them, but peerd may begin anew within it.
func (d *Driver) Adopt(context.Context) ([]driver.Task, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []driver.Task
	for _, t := range d.tasks {
		out = append(out, t)
	}
	return out, nil
}

// Remove deletes the log of a workload. Compiled modules stay cached, within limits.
func (d *Driver) Remove(ctx context.Context, id mesh.WorkloadID) error {
	if err := d.stopEarlier(ctx, id); err != nil {
		return err
	}
	d.mu.Lock()
	delete(d.tasks, id)
	d.mu.Unlock()
	if err := logfile.Remove(d.logPath(id)); err != nil {
		return fmt.Errorf("cannot remove the log: %w", err)
	}
	return nil
}

// Logs implements driver.Driver.
func (d *Driver) Logs(ctx context.Context, id mesh.WorkloadID, o driver.LogOptions) (driver.LogReader, error) {
	var live *logfile.Log
	d.mu.Lock()
	if t := d.tasks[id]; t != nil {
		live = t.log
	}
	d.mu.Unlock()
	read := logfile.Read
	if o.Follow && live != nil {
		read = logfile.Follow
	}
	r, err := read(ctx, d.logPath(id), o.Tail, live)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, mesh.Errorf(mesh.NotFound, "workload %s has no log here", id)
	}
	if err != nil {
		return nil, err
	}
	return newLogReader(r, o), nil
}

// logPath is safe for any ID: it is parsed before it gets here, and hashed if not.
func (d *Driver) logPath(id mesh.WorkloadID) string {
	name := string(id)
	if _, err := mesh.ParseWorkloadID(name); err != nil {
		name = shortHash(name)
	}
	return filepath.Join(d.cfg.Dir, "logs", name+".log")
}

// shortHash is a file name for a string of any form.
func shortHash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:8])
}

// drainWait is how long the last output of a run may take to arrive.
const drainWait = 5 * time.Second
