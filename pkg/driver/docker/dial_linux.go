package docker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"peercompute/pkg/driver/docker/internal/netns"
	"peercompute/pkg/mesh"
)

// loopback is where the programs of a workload listen, and nobody else.
var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// dialInside connects to a TCP port at an address of the network namespace that the
// file names. A socket belongs for ever to the namespace it was made in, so only the
// making of it happens inside; connecting, waiting and deadlines are those of
// package net.
func dialInside(ctx context.Context, namespace string, at netip.AddrPort) (net.Conn, error) {
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
	conn, err := d.DialContext(ctx, "tcp4", at.String())
	switch {
	case err == nil:
		return conn, nil
	case errors.Is(err, unix.EPERM):
		return nil, notPermitted(err)
	case ctx.Err() != nil:
		return nil, mesh.AsError(fmt.Errorf("no answer on port %d: %w", at.Port(), ctx.Err()))
	}
	return nil, mesh.Errorf(mesh.Unavailable, "nothing answers on port %d of the workload", at.Port()).Because(err)
}

// socketInside makes a TCP socket (IPv4) in the network namespace that the file names.
func socketInside(namespace string) (int, error) {
	fd := -1
	err := netns.Do(namespace, func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		if err != nil {
			return fmt.Errorf("cannot make a socket: %w", err)
		}
		return nil
	})
	if err != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		return -1, err
	}
	return fd, nil
}

// canEnter says whether peerd has the right to enter namespaces.
func canEnter() error {
	if err := netns.CanEnter(); err != nil {
		return notPermitted(err)
	}
	return nil
}

func notPermitted(err error) error {
	return mesh.Errorf(mesh.Unsupported, "peerd may not enter the network namespaces of containers, so it cannot reach their ports").
		WithHint("run peerd as root, or give it CAP_SYS_ADMIN (systemd: AmbientCapabilities=CAP_SYS_ADMIN)").Because(err)
}
