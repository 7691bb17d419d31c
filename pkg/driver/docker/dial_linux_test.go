package docker

import (
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"peercompute/pkg/driver/docker/internal/netns"
	"peercompute/pkg/mesh"
	"peercompute/pkg/testkit"
)

// namespaceFile makes an empty network namespace with its loopback down, as a
// container's is named: a file with the namespace mounted on it.
func namespaceFile(t *testing.T) string {
	t.Helper()
	testkit.Need(t, "root")
	path := filepath.Join(t.TempDir(), "ns")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	made := make(chan error, 1)
	onThreadToSpare(func() {
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = unix.Mount(netns.Own, path, "", unix.MS_BIND, "")
		}
		made <- err
	})
	if err := <-made; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return path
}

// onThreadToSpare runs f on a thread that ends with it. The main thread is never
// that: the runtime keeps it.
func onThreadToSpare(f func()) {
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			f()
			return
		}
		defer runtime.UnlockOSThread()
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread() // another one: the main thread is taken
			f()
		}()
		<-done
	}()
}

func TestNeverDialsTheHost(t *testing.T) {
	testkit.Need(t, "root")
	if fd, err := socketInside("/proc/self/ns/net"); err == nil {
		unix.Close(fd)
		t.Fatal("a socket of the host's namespace was made in a workload's name")
	}
	if conn, err := dialInside(t.Context(), "/proc/self/ns/net", netip.AddrPortFrom(loopback, 1)); err == nil {
		conn.Close()
		t.Fatal("the host was dialled in a workload's name")
	}
}

func TestDialWhereNothingIs(t *testing.T) {
	testkit.Need(t, "root")
	ns := namespaceFile(t)
	plainFile := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(plainFile, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{ns, plainFile, plainFile + "-gone"} {
		if _, err := dialInside(t.Context(), path, netip.AddrPortFrom(loopback, 80)); mesh.KindOf(errOr(err)) != mesh.Unavailable {
			t.Errorf("%s: got %v, want mesh.Unavailable", path, err)
		}
	}
}

// After many dials by many, no thread of ours is left in a workload's namespace.
func TestThreadsComeBack(t *testing.T) {
	ns := namespaceFile(t)
	own, err := os.Readlink(netns.Own)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for range 50 {
				fd, err := socketInside(ns)
				if err != nil {
					t.Error(err)
					return
				}
				unix.Close(fd)
			}
		})
	}
	all.Wait()
	// The thread that made the namespace may be ending still.
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); ; <-tick.C {
		stray := strayThread(t, own)
		if stray == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s; ours is %s", stray, own)
		}
	}
}

// strayThread names a thread that is not in the namespace own.
func strayThread(t *testing.T, own string) string {
	t.Helper()
	threads, err := filepath.Glob("/proc/self/task/*/ns/net")
	if err != nil || len(threads) == 0 {
		t.Fatalf("no threads: %v", err)
	}
	for _, link := range threads {
		if at, err := os.Readlink(link); err == nil && at != own {
			return link + " is in " + at
		}
	}
	return ""
}
