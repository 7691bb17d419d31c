package docker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"peercompute/pkg/mesh"
)

const ownNamespace = "/proc/thread-self/ns/net"

// dialInside connects to a TCP port on the loopback of the network namespace that
// the file names. A socket belongs for ever to the namespace it was made in, so
// only the making of it happens inside; connecting, waiting and deadlines are
// those of package net.
func dialInside(ctx context.Context, namespace string, port uint16) (net.Conn, error) {
	d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		inside, err := socketInside(namespace)
		if err != nil {
			return err
		}
		defer unix.Close(inside)
		// The dialer has made a socket out here, not connected yet. Ours takes its place.
		var dup error
		if err := raw.Control(func(fd uintptr) { dup = unix.Dup3(inside, int(fd), unix.O_CLOEXEC) }); err != nil {
			return err
		}
		return dup
	}}
	p := strconv.Itoa(int(port))
	conn, err := d.DialContext(ctx, "tcp4", net.JoinHostPort("127.0.0.1", p))
	switch {
	case err == nil:
		return conn, nil
	case errors.Is(err, unix.EPERM):
		return nil, notPermitted(err)
	case ctx.Err() != nil:
		return nil, mesh.AsError(fmt.Errorf("no answer on port %s: %w", p, ctx.Err()))
	}
	return nil, mesh.Errorf(mesh.Unavailable, "nothing answers on port %s of the workload", p).Because(err)
}

// errHost guards against connecting to this machine's own ports in a workload's name.
var errHost = errors.New("the container shares the host's network")

// socketInside makes a TCP socket (IPv4) in the network namespace that the file names.
func socketInside(namespace string) (fd int, err error) {
	ns, err := unix.Open(namespace, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("cannot open the network namespace: %w", err)
	}
	defer unix.Close(ns)
	runtime.LockOSThread()
	own, err := unix.Open(ownNamespace, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return -1, fmt.Errorf("cannot open our own network namespace: %w", err)
	}
	defer unix.Close(own)
	if same, err := sameFile(own, ns); err != nil || same {
		runtime.UnlockOSThread()
		return -1, errors.Join(errHost, err)
	}
	if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return -1, fmt.Errorf("cannot enter the network namespace: %w", err)
	}
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if back := unix.Setns(own, unix.CLONE_NEWNET); back != nil {
		// The thread stays locked to this goroutine, and ends with it: no other
		// goroutine may ever run in the workload's namespace. This one can reach
		// nothing from there.
		if err == nil {
			unix.Close(fd)
		}
		return -1, fmt.Errorf("cannot leave the network namespace: %w", back)
	}
	runtime.UnlockOSThread()
	if err != nil {
		return -1, fmt.Errorf("cannot make a socket: %w", err)
	}
	return fd, nil
}

func sameFile(a, b int) (bool, error) {
	var x, y unix.Stat_t
	if err := errors.Join(unix.Fstat(a, &x), unix.Fstat(b, &y)); err != nil {
		return false, err
	}
	return x.Dev == y.Dev && x.Ino == y.Ino, nil
}

// canEnter says whether peerd has the right to enter namespaces, by entering the
// one it is in.
func canEnter() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, err := unix.Open(ownNamespace, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return notPermitted(err)
	}
	defer unix.Close(own)
	if err := unix.Setns(own, unix.CLONE_NEWNET); err != nil {
		return notPermitted(err)
	}
	return nil
}

func notPermitted(err error) error {
	return mesh.Errorf(mesh.Unsupported, "peerd may not enter the network namespaces of containers, so it cannot reach their ports").
		WithHint("run peerd as root, or give it CAP_SYS_ADMIN (systemd: AmbientCapabilities=CAP_SYS_ADMIN)").Because(err)
}
