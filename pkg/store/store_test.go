package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"peercompute/pkg/mesh"
	"peercompute/pkg/testkit"
)

func TestMain(m *testing.M) {
	if path := os.Getenv("STORE_TEST_CHILD"); path != "" {
		os.Exit(child(path))
	}
	goleak.VerifyTestMain(m)
}

func open(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestUpdateIsAtomicAndIsolated(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), FileName))
	ctx := context.Background()
	refusal := errors.New("no")
	var wg sync.WaitGroup
	const n = 200
	for i := range n {
		wg.Go(func() {
			err := s.Update(ctx, func(tx *Tx) error {
				if err := tx.Put(Workloads, fmt.Appendf(nil, "%03d", i), []byte("x")); err != nil {
					return err
				}
				if i%3 == 0 {
					return refusal
				}
				return nil
			})
			if want := i%3 == 0; errors.Is(err, refusal) != want {
				t.Errorf("update %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	err := s.View(func(tx *Tx) error {
		for i := range n {
			if got, want := tx.Get(Workloads, fmt.Appendf(nil, "%03d", i)) != nil, i%3 != 0; got != want {
				t.Errorf("key %d is there: %t, want %t", i, got, want)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestIncarnationAndBinding(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	s := open(t, path)
	inc := s.Incarnation()
	if inc == [16]byte{} {
		t.Fatal("the incarnation is all zero")
	}
	if err := s.Bind(context.Background(), "node-a"); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); mesh.KindOf(err) != mesh.Conflict {
		t.Fatalf("a second opener: %v, want Conflict", err)
	}
	s2 := open(t, filepath.Join(t.TempDir(), FileName))
	if s2.Incarnation() == inc {
		t.Fatal("two files share an incarnation")
	}
	if err := s.Bind(context.Background(), "node-b"); mesh.KindOf(err) != mesh.Conflict {
		t.Fatalf("binding to another node: %v, want Conflict", err)
	}
}

func TestRefusesNewerAndDamaged(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, FileName)
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	err = s.Update(context.Background(), func(tx *Tx) error {
		return tx.Put(Meta, keyVersion, binary.BigEndian.AppendUint64(nil, uint64(Version)+1))
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := Open(path); mesh.KindOf(err) != mesh.Unsupported {
		t.Fatalf("a newer file: %v, want Unsupported", err)
	}
	junk := filepath.Join(dir, "junk.db")
	if err := os.WriteFile(junk, []byte(strings.Repeat("not a database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(junk); mesh.KindOf(err) != mesh.Invalid {
		t.Fatalf("a damaged file: %v, want Invalid", err)
	}
	if err := Create(path); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("creating over a file: %v, want fs.ErrExist", err)
	}
}

// child acknowledges each committed number on stdout until it is killed or a
// write fails.
func child(path string) int {
	s, err := Open(path)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 3
	}
	for i := uint64(0); ; i++ {
		err := s.Update(context.Background(), func(tx *Tx) error {
			return tx.Put(Workloads, binary.BigEndian.AppendUint64(nil, i), []byte(strings.Repeat("v", 200)))
		})
		if err != nil {
			select {
			case <-s.Failed():
				fmt.Println("failed")
				// Never again, whatever is asked.
				if again := s.Update(context.Background(), func(tx *Tx) error { return nil }); again == nil {
					fmt.Println("written after a failure")
				}
				return 4
			default:
				return 5
			}
		}
		fmt.Println(i)
	}
}

func childCommand(path string, wrap ...string) *exec.Cmd {
	args := append(wrap, os.Args[0])
	c := exec.Command(args[0], args[1:]...)
	c.Env = append(os.Environ(), "STORE_TEST_CHILD="+path)
	return c
}

// kill -9 at any moment loses nothing that was acknowledged, and the file opens.
func TestKillLosesNothingAcknowledged(t *testing.T) {
	rounds := 30
	if testing.Short() {
		rounds = 5
	}
	path := filepath.Join(t.TempDir(), FileName)
	for round := range rounds {
		c := childCommand(path)
		var out strings.Builder
		c.Stdout = &out
		c.Stderr = os.Stderr
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20*time.Millisecond + time.Duration(round)*3*time.Millisecond)
		if err := c.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		c.Wait()
		acked := strings.Count(out.String(), "\n")
		s, err := Open(path)
		if err != nil {
			t.Fatalf("round %d: the file does not open after kill -9: %v", round, err)
		}
		err = s.View(func(tx *Tx) error {
			for i := range acked {
				if tx.Get(Workloads, binary.BigEndian.AppendUint64(nil, uint64(i))) == nil {
					return fmt.Errorf("number %d was acknowledged and is gone", i)
				}
			}
			return nil
		})
		s.Close()
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
}

// A failing fsync ends all writing: nothing is acknowledged after it.
func TestFsyncErrorStops(t *testing.T) {
	testkit.Need(t, "strace")
	for n := 3; n < 12; n++ {
		path := filepath.Join(t.TempDir(), FileName)
		log := filepath.Join(t.TempDir(), "strace")
		c := childCommand(path, "strace", "-f", "-o", log, "-e", "trace=fdatasync,fsync",
			"-e", fmt.Sprintf("inject=fdatasync,fsync:error=EIO:when=%d", n))
		out, err := c.Output()
		if err == nil {
			t.Fatalf("when=%d: the process went on", n)
		}
		if strings.Contains(string(out), "written after") {
			t.Fatalf("when=%d: written after a failed fsync", n)
		}
		trace, _ := os.ReadFile(log)
		if strings.Contains(string(trace), "ptrace(") && !strings.Contains(string(trace), "INJECTED") {
			t.Skip("strace cannot trace here")
		}
		if !strings.Contains(string(trace), "INJECTED") {
			t.Fatalf("when=%d: no error was injected:\n%s", n, trace)
		}
		injected := strings.Split(string(trace), "INJECTED")[0]
		syncs := strings.Count(injected, "fdatasync(") + strings.Count(injected, "fsync(")
		acked := strings.Count(string(out), "\n") - strings.Count(string(out), "failed\n")
		if acked > syncs {
			t.Fatalf("when=%d: %d acknowledged with %d syncs", n, acked, syncs)
		}
	}
}

func BenchmarkUpdate(b *testing.B) {
	for _, writers := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			s, err := Open(filepath.Join(b.TempDir(), FileName))
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			b.SetParallelism(writers)
			var n sync.Mutex
			var i uint64
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					n.Lock()
					i++
					k := binary.BigEndian.AppendUint64(nil, i)
					n.Unlock()
					if err := s.Update(context.Background(), func(tx *Tx) error { return tx.Put(Nonces, k, k) }); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
