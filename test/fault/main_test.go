// Package fault breaks what the product stands on: processes that are killed, disks
// that lose, tear, refuse or run out, files that go missing or come back older. What
// was acknowledged must be there after it, or the loss be said.
package fault

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"peercompute/pkg/store"
	"peercompute/test/fault/writer/change"
	"peercompute/test/internal/testmesh"
)

func TestMain(m *testing.M) { os.Exit(testmesh.Main(m)) }

// scale is a figure of the test plan, or a part of it where each step costs many
// times more.
func scale(full int) int {
	if raceEnabled || testing.Short() {
		return max(full/20, 2)
	}
	return full
}

// said is what a writer's output comes to.
type said struct {
	opened bool
	start  uint64
	acked  []uint64
	full   int
	failed bool
	done   bool
	wrong  bool // it wrote after a failure
}

func parse(t *testing.T, out []byte) (s said) {
	t.Helper()
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		what, rest, two := strings.Cut(lines.Text(), " ")
		n, err := strconv.ParseUint(rest, 10, 64)
		switch {
		case two && what == "start" && err == nil:
			s.opened, s.start = true, n
		case two && what == "full" && err == nil:
			s.full++
		case lines.Text() == "failed":
			s.failed = true
		case lines.Text() == "done":
			s.done = true
		case lines.Text() == "written after a failure":
			s.wrong = true
		default:
			if n, err = strconv.ParseUint(what, 10, 64); err != nil || two {
				t.Fatalf("the writer said %q", lines.Text())
			}
			s.acked = append(s.acked, n)
		}
	}
	return s
}

// next is the first change that was certainly never begun.
func (s said) next() uint64 {
	if len(s.acked) == 0 {
		return s.start + change.Writers
	}
	return max(s.start, slices.Max(s.acked)+1) + change.Writers
}

// holds opens the state file and requires everything that was acknowledged.
func holds(path string, s said) error {
	st, err := store.Open(path)
	if err != nil {
		return fmt.Errorf("the state does not open: %w", err)
	}
	err = st.View(func(tx *store.Tx) error {
		for _, n := range s.acked {
			if err := change.Check(tx, n, s.next()); err != nil {
				return err
			}
		}
		return nil
	})
	if cerr := st.Close(); err == nil {
		err = cerr
	}
	return err
}

// writer prepares a writer, behind a command of its own if one is given.
func writer(t *testing.T, wrap []string, args ...string) *exec.Cmd {
	t.Helper()
	all := append(append(slices.Clone(wrap), testmesh.Build(t, "./test/fault/writer")), args...)
	c := exec.Command(all[0], all[1:]...)
	c.Stderr = os.Stderr
	return c
}

// tally keeps what a process says while it is being read.
type tally struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *tally) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *tally) bytes() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return bytes.Clone(o.buf.Bytes())
}

func (o *tally) count(text string) int { return bytes.Count(o.bytes(), []byte(text)) }

// inMemory is a directory on a file system without a disk where there is one, for
// what has nothing to do with disks and happens thousands of times.
func inMemory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "pcfault")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// within polls until ok holds, and fails the test after limit.
func within(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s", what, limit)
		}
	}
}
