package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"peercompute/pkg/archive"
	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
)

// Files are copied by a process of its own: peerd, run once more. It gets the
// container's root as a descriptor, counts against the container's memory, and has
// become the container's user before it looks at anything.

// copyOrder is what the process is told. It begins when it has read it.
type copyOrder struct {
	UID  int            `json:"uid"`
	GID  int            `json:"gid"`
	Path string         `json:"path,omitempty"` // to copy out; empty = copy in
	To   *driver.CopyTo `json:"to,omitempty"`
}

// copyAnswer is what it says at its end.
type copyAnswer struct {
	Report archive.Report `json:"report"`
	Kind   mesh.Kind      `json:"kind,omitempty"`
	Msg    string         `json:"msg,omitempty"` // empty = it went well
}

const (
	maxCopyAnswer = 16 << 10
	copyWait      = time.Second // for the streams of one that has ended
)

var _ driver.Copier = (*task)(nil)

// CopyOut writes what is at a path of the container as a tar archive.
func (t *task) CopyOut(ctx context.Context, path string, w io.Writer) (archive.Report, error) {
	return t.copy(ctx, copyOrder{Path: path}, nil, w)
}

// CopyIn unpacks a tar archive in the container.
func (t *task) CopyIn(ctx context.Context, to driver.CopyTo, r io.Reader) (archive.Report, error) {
	return t.copy(ctx, copyOrder{To: &to}, r, nil)
}

func (t *task) copy(ctx context.Context, o copyOrder, in io.Reader, out io.Writer) (archive.Report, error) {
	if t.driver.copier == nil {
		return archive.Report{}, mesh.Errorf(mesh.Unsupported, "this peer copies no files into or out of containers")
	}
	e, err := t.driver.knowEngine(ctx)
	if err != nil {
		return archive.Report{}, err
	}
	if e.sandboxes {
		return archive.Report{}, mesh.Errorf(mesh.Unsupported, "gVisor keeps the files of its containers to itself, so none can be copied").
			WithHint("where the image has tar: peerctl exec -i NAME -- tar -x")
	}
	root, err := openRoot(t.pid, t.container)
	if err != nil {
		return archive.Report{}, mesh.Errorf(mesh.Unavailable, "the container has ended").Because(err)
	}
	dir := os.NewFile(uintptr(root), "root")
	defer dir.Close()
	if o.UID, o.GID, err = userOfProcess(t.pid, t.container); err != nil {
		return archive.Report{}, err
	}
	// The kernel tells a child of its parent's end by the thread that made it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	a, err := t.runCopier(ctx, o, dir, in, out)
	switch {
	case ctx.Err() != nil:
		return a.Report, context.Cause(ctx)
	case err != nil:
		return a.Report, mesh.Errorf(mesh.Internal, "the files could not be copied").Because(err)
	case a.Msg != "":
		if a.Kind == mesh.Denied && o.To != nil {
			a.Msg += "; the workload can write below " + clip(strings.Join(t.scratch, ", "), 200)
		}
		return a.Report, mesh.Errorf(a.Kind, "%s", a.Msg)
	}
	return a.Report, nil
}

// runCopier runs the process to its end, or kills it when ctx ends.
func (t *task) runCopier(ctx context.Context, o copyOrder, root *os.File, in io.Reader, out io.Writer) (a copyAnswer, err error) {
	var open []io.Closer
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	pipe := func() (r, w *os.File, err error) {
		if r, w, err = os.Pipe(); err == nil {
			open = append(open, r, w) // closed again at the end, which is no harm
		}
		return r, w, err
	}
	hears, tell, err := pipe()
	if err != nil {
		return a, err
	}
	answers, says, err := pipe()
	if err != nil {
		return a, err
	}
	cmd := t.driver.copier(ctx)
	cmd.Env, cmd.Dir, cmd.WaitDelay = []string{}, "/", copyWait
	cmd.ExtraFiles = []*os.File{root, hears, says} // rootFD, orderFD, answerFD
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	var last bytes.Buffer
	cmd.Stderr = &limited{w: &last, left: maxCopyAnswer}
	cmd.Stdout = out
	var feed *os.File
	if in != nil {
		var theirs *os.File
		if theirs, feed, err = pipe(); err != nil {
			return a, err
		}
		cmd.Stdin = theirs
	}
	if err := cmd.Start(); err != nil {
		return a, err
	}
	hears.Close()
	says.Close()
	if f, ok := cmd.Stdin.(*os.File); ok {
		f.Close()
	}
	fail := func(err error) (copyAnswer, error) {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return a, err
	}
	// It does nothing before its order: all that it uses from then on is counted.
	if err := joinMemory(cmd.Process.Pid, t.pid, t.container); err != nil {
		return fail(err)
	}
	order, err := json.Marshal(o)
	if err != nil {
		return fail(err)
	}
	if _, err := tell.Write(append(order, '\n')); err != nil {
		return fail(err)
	}
	if in != nil {
		go func() { // ends with in
			_, _ = io.Copy(feed, in)
			feed.Close()
		}()
	}
	ended := cmd.Wait()
	if st, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && st.Signaled() && st.Signal() == unix.SIGKILL && ctx.Err() == nil {
		a.Kind, a.Msg = mesh.OutOfMemory, "the container's memory is used up; its files in scratch count against it"
		return a, nil
	}
	said, err := io.ReadAll(io.LimitReader(answers, maxCopyAnswer))
	if err == nil {
		err = json.Unmarshal(said, &a)
	}
	if err != nil || ended != nil {
		return a, fmt.Errorf("%w (%w), it said %q", errors.Join(err), ended, clip(last.String(), 300))
	}
	return a, nil
}

// joinMemory counts what a process uses from now on against a container, and lets it
// be the first to go when that has no more.
func joinMemory(pid, of int, container string) error {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(of), "cgroup"))
	if err != nil {
		return fmt.Errorf("cannot see the container's control group: %w", err)
	}
	dir, err := memoryGroup(string(b), container)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join("/proc", strconv.Itoa(pid), "oom_score_adj"), []byte("1000"), 0); err != nil {
		return fmt.Errorf("cannot make the copying the first to go: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
		return fmt.Errorf("cannot count the copying as the container's: %w", err)
	}
	return nil
}

// memoryGroup is the directory of the control group that counts a container's memory,
// from what the kernel says of one of its processes.
func memoryGroup(groups, container string) (string, error) {
	unified := ""
	for line := range strings.Lines(groups) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 || !filepath.IsAbs(parts[2]) || !filepath.IsLocal(parts[2][1:]) || container == "" || !strings.Contains(parts[2], container) {
			continue
		}
		for c := range strings.SplitSeq(parts[1], ",") {
			if c == "memory" {
				return filepath.Join("/sys/fs/cgroup/memory", parts[2]), nil
			}
		}
		if parts[0] == "0" && parts[1] == "" {
			unified = filepath.Join("/sys/fs/cgroup", parts[2])
		}
	}
	if unified == "" {
		return "", errors.New("the container is in no control group for memory")
	}
	return unified, nil
}

// userOfProcess is the user and group of a container's process, as this machine
// numbers them; never root.
func userOfProcess(pid int, container string) (uid, gid int, err error) {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil || !belongs(pid, container) {
		return 0, 0, mesh.Errorf(mesh.Unavailable, "the container has ended").Because(err)
	}
	id := func(key string) int {
		for line := range bytes.Lines(b) {
			if f := strings.Fields(string(line)); len(f) == 5 && f[0] == key {
				n, _ := strconv.Atoi(f[1])
				return n
			}
		}
		return 0
	}
	if uid, gid = id("Uid:"), id("Gid:"); uid <= 0 || gid <= 0 {
		return 0, 0, mesh.Errorf(mesh.Denied, "the container's program runs as root, so no files are copied").WithRule("container.copy")
	}
	return uid, gid, nil
}

// limited keeps the beginning of what is written to it.
type limited struct {
	w    io.Writer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(l.left, len(p))
	l.left -= n
	if _, err := l.w.Write(p[:n]); err != nil {
		return 0, err
	}
	return len(p), nil
}
