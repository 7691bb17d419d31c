package fault

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"peercompute/pkg/testkit"
)

// output keeps what a process says and tells when it begins to.
type output struct {
	buf   bytes.Buffer
	once  sync.Once
	first chan struct{}
}

func (o *output) Write(p []byte) (int, error) {
	defer o.once.Do(func() { close(o.first) })
	return o.buf.Write(p)
}

// A writer is killed a thousand times at random moments, over one file that lives on
// (test plan, crash): nothing that was acknowledged is lost, and the file opens.
func TestKilledWriter(t *testing.T) {
	t.Parallel()
	// In memory fsync takes no time, and more is under way when the kill comes; what a
	// killed process wrote is kept either way. The last hundred meet a real fsync.
	path := filepath.Join(inMemory(t), "state.db")
	kills, acked := 0, 0
	for kills < scale(1000) {
		if kills == scale(900) {
			path = filepath.Join(t.TempDir(), "state.db")
		}
		c := writer(t, nil, path)
		out := &output{first: make(chan struct{})}
		c.Stdout = out
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		if kills%10 > 0 { // one in ten may meet the opening
			select {
			case <-out.first:
			case <-time.After(time.Minute):
				t.Fatal("the writer does not start")
			}
		}
		time.Sleep(time.Duration(rand.IntN(8000)) * time.Microsecond) // the moment is the test
		if err := c.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		_ = c.Wait()
		s := parse(t, out.buf.Bytes())
		if s.failed || s.done {
			t.Fatalf("the writer ended by itself: %s", out.buf.Bytes())
		}
		if err := holds(path, s); err != nil {
			t.Fatalf("kill %d, after %d acknowledged: %v", kills, len(s.acked), err)
		}
		kills++
		acked += len(s.acked)
	}
	t.Logf("0 acknowledged changes lost of %d, 0 unreadable files, in %d kills", acked, kills)
	if acked < kills {
		t.Errorf("only %d changes were acknowledged: the kills hardly met any", acked)
	}
}

// The writer is killed as it enters each system call of the store's path, from the
// first that makes the file to the last that closes it.
func TestKilledAtEachCall(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "strace")
	for _, call := range []string{"pwrite64", "fdatasync", "fsync", "ftruncate", "renameat", "unlinkat", "openat", "flock"} {
		killed, whole := 0, 0
		for n := 1; whole == 0 && n <= 60; n++ {
			dir := t.TempDir()
			path := filepath.Join(dir, "state.db")
			c := writer(t, []string{"strace", "-f", "-qq", "-o", filepath.Join(dir, "trace"), "-e", "trace=" + call, "-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", call, n)}, path, "20")
			c.Env = append(os.Environ(), "GOMAXPROCS=1") // strace counts calls by thread
			var out bytes.Buffer
			c.Stdout, c.Stderr = &out, nil
			_ = c.Run()
			s := parse(t, out.Bytes())
			if s.done {
				whole++
			} else {
				killed++
			}
			if _, err := os.Lstat(path); err != nil {
				if len(s.acked) > 0 {
					t.Errorf("%s, call %d: %d changes were acknowledged, and there is no file", call, n, len(s.acked))
				}
				continue // killed while it was being made
			}
			if err := holds(path, s); err != nil {
				t.Errorf("killed at %s, call %d, after %d acknowledged: %v", call, n, len(s.acked), err)
			}
		}
		t.Logf("%s: killed at %d calls", call, killed)
		if killed == 0 && !strings.HasPrefix(call, "unlink") && call != "ftruncate" {
			t.Errorf("%s: never killed", call)
		}
	}
}
