package jail

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Group is a memory control group for one worker. The nil Group is valid, holds
// nothing and limits nothing.
type Group struct {
	dir string
	v2  bool
}

// prefix begins the name of every group, so that stale ones can be told.
const prefix = "peercompute-worker-"

// NewGroup makes a group that may use limit bytes, swap included where the kernel
// counts it. parent is the directory of the group to make it in, "" for the one
// that this process is in. name must be a plain file name.
func NewGroup(parent, name string, limit int64) (*Group, error) {
	base, v2, err := parentGroup(parent)
	if err != nil {
		return nil, err
	}
	g := &Group{dir: filepath.Join(base, prefix+name), v2: v2}
	if err := os.Mkdir(g.dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("cannot make a memory group: %w", err)
	}
	if err := g.limit(limit); err != nil {
		_ = os.Remove(g.dir)
		return nil, err
	}
	return g, nil
}

func (g *Group) limit(limit int64) error {
	value := []byte(strconv.FormatInt(limit, 10))
	file, swap, noSwap := "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", value
	if g.v2 {
		file, swap, noSwap = "memory.max", "memory.swap.max", []byte("0")
	}
	if err := os.WriteFile(filepath.Join(g.dir, file), value, 0); err != nil {
		return fmt.Errorf("cannot limit a memory group: %w", err)
	}
	// Not every kernel counts swap.
	if err := os.WriteFile(filepath.Join(g.dir, swap), noSwap, 0); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("cannot limit the swap of a memory group: %w", err)
	}
	return nil
}

// Add moves the process into the group.
func (g *Group) Add(pid int) error {
	if g == nil {
		return nil
	}
	if err := os.WriteFile(filepath.Join(g.dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
		return fmt.Errorf("cannot move worker %d into its memory group: %w", pid, err)
	}
	return nil
}

// Kills is how many processes of the group the kernel ended for want of memory.
func (g *Group) Kills() int64 {
	if g == nil {
		return 0
	}
	file := "memory.oom_control"
	if g.v2 {
		file = "memory.events"
	}
	b, err := os.ReadFile(filepath.Join(g.dir, file))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if n, ok := strings.CutPrefix(line, "oom_kill "); ok {
			v, _ := strconv.ParseInt(strings.TrimSpace(n), 10, 64)
			return v
		}
	}
	return 0
}

// Remove deletes the group once its process is gone. The kernel may hold on to
// it for a moment after that, so it is tried until ctx ends.
func (g *Group) Remove(ctx context.Context) error {
	if g == nil {
		return nil
	}
	for {
		err := os.Remove(g.dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cannot remove a memory group: %w", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// RemoveStale deletes empty groups with these names, left by a peerd that was killed.
func RemoveStale(parent string, names func(name string) bool) {
	base, _, err := parentGroup(parent)
	if err != nil {
		return
	}
	entries, err := os.ReadDir(base)
	if err != nil {
		return
	}
	for _, e := range entries {
		if name, ok := strings.CutPrefix(e.Name(), prefix); ok && names(name) {
			_ = os.Remove(filepath.Join(base, e.Name())) // fails, rightly, while a process is in it
		}
	}
}

// parentGroup is where groups are made, and whether it is of the second version.
func parentGroup(dir string) (string, bool, error) {
	if dir == "" {
		return ownGroup()
	}
	_, err := os.Stat(filepath.Join(dir, "cgroup.controllers"))
	return usable(dir, err == nil)
}

// ownGroup is the directory of this process's own memory group.
func ownGroup() (dir string, v2 bool, err error) {
	f, err := os.Open("/proc/self/cgroup")
	if err != nil {
		return "", false, fmt.Errorf("no control groups: %w", err)
	}
	defer f.Close()
	unified := ""
	for lines := bufio.NewScanner(f); lines.Scan(); {
		parts := strings.SplitN(lines.Text(), ":", 3)
		if len(parts) != 3 {
			continue
		}
		for c := range strings.SplitSeq(parts[1], ",") {
			if c == "memory" {
				return usable(filepath.Join("/sys/fs/cgroup/memory", parts[2]), false)
			}
		}
		if parts[0] == "0" {
			unified = parts[2]
		}
	}
	dir = filepath.Join("/sys/fs/cgroup", unified)
	// Children get the memory controller only if this group hands it down, which
	// the kernel refuses while processes sit in it (the root excepted).
	if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+memory"), 0); err != nil {
		return "", true, fmt.Errorf("this service's control group is not delegated: %w", err)
	}
	return usable(dir, true)
}

func usable(dir string, v2 bool) (string, bool, error) {
	if err := unix.Access(dir, unix.W_OK); err != nil {
		return "", v2, fmt.Errorf("the memory control group is not writable: %w", err)
	}
	return dir, v2, nil
}
