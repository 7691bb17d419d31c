package testmesh

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Memory measures how far a process's resident memory grows.
type Memory struct {
	pid    int
	before int64
}

// WatchMemory notes what the process holds now and makes the kernel forget its
// earlier peak. Linux only.
func WatchMemory(t testing.TB, pid int) *Memory {
	t.Helper()
	if err := os.WriteFile(filepath.Join("/proc", strconv.Itoa(pid), "clear_refs"), []byte("5"), 0); err != nil {
		t.Fatal(err)
	}
	now, err := memory(pid, "VmRSS")
	if err != nil {
		t.Fatal(err)
	}
	return &Memory{pid, now}
}

// Grown is how many bytes the peak since then is over what was held before.
func (m *Memory) Grown(t testing.TB) int64 {
	t.Helper()
	peak, err := memory(m.pid, "VmHWM")
	if err != nil {
		t.Fatal(err)
	}
	return peak - m.before
}

// Before is what was held at the start, in bytes.
func (m *Memory) Before() int64 { return m.before }

func memory(pid int, field string) (int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(value, "kB")), 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("no " + field)
}
