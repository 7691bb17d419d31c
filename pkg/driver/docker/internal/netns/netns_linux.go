package netns

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// Own is the namespace that the calling thread is in.
const Own = "/proc/thread-self/ns/net"

// ErrHost guards against doing to this machine what was meant for a workload.
var ErrHost = errors.New("the container shares the host's network")

// Do calls f inside the network namespace that the file names. f must start no
// goroutine that is to be inside as well.
func Do(namespace string, f func() error) error {
	ns, err := unix.Open(namespace, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot open the network namespace: %w", err)
	}
	defer unix.Close(ns)
	runtime.LockOSThread()
	own, err := unix.Open(Own, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("cannot open our own network namespace: %w", err)
	}
	defer unix.Close(own)
	if same, err := sameFile(own, ns); err != nil || same {
		runtime.UnlockOSThread()
		return errors.Join(ErrHost, err)
	}
	if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("cannot enter the network namespace: %w", err)
	}
	err = f()
	if back := unix.Setns(own, unix.CLONE_NEWNET); back != nil {
		// The thread stays locked to this goroutine, and ends with it: no other
		// goroutine may ever run in the workload's namespace. This one can reach
		// nothing from there.
		return errors.Join(fmt.Errorf("cannot leave the network namespace: %w", back), err)
	}
	runtime.UnlockOSThread()
	return err
}

// CanEnter says whether we have the right to enter namespaces, by entering the one
// that we are in.
func CanEnter() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, err := unix.Open(Own, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(own)
	return unix.Setns(own, unix.CLONE_NEWNET)
}

func sameFile(a, b int) (bool, error) {
	var x, y unix.Stat_t
	if err := errors.Join(unix.Fstat(a, &x), unix.Fstat(b, &y)); err != nil {
		return false, err
	}
	return x.Dev == y.Dev && x.Ino == y.Ino, nil
}
