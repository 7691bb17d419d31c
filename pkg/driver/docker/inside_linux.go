package docker

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// This file looks at a container's files as its processes see them, through the root
// directory of one of them. Every path is resolved inside that root: no link of an
// image leads out of it.

var errOtherProcess = errors.New("the process is not one of this container")

// openRoot opens the root directory of a container's process. An ID of a process
// that has ended may be another's by now, so it is asked where it belongs once its
// root is open.
func openRoot(pid int, container string) (fd int, err error) {
	if pid <= 0 {
		return -1, errOtherProcess
	}
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	fd, err = unix.Open(filepath.Join(proc, "root"), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil && !belongs(pid, container) {
		return -1, errOtherProcess
	}
	if err != nil {
		return -1, fmt.Errorf("cannot open the container's root: %w", err)
	}
	if !belongs(pid, container) {
		unix.Close(fd)
		return -1, errOtherProcess
	}
	return fd, nil
}

// belongs reports whether a process is in a container's control group.
func belongs(pid int, container string) bool {
	groups, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cgroup"))
	return err == nil && container != "" && bytes.Contains(groups, []byte(container))
}

// openAt opens a path inside root, links followed within it.
func openAt(root int, path string, flags int, mode uint64) (int, error) {
	return unix.Openat2(root, path, &unix.OpenHow{
		Flags: uint64(flags | unix.O_CLOEXEC), Mode: mode, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// devicesOf is the device that lies at each of these directories.
func devicesOf(pid int, container string, dirs []string) ([]uint64, error) {
	root, err := openRoot(pid, container)
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	var out []uint64
	for _, dir := range dirs {
		fd, err := openAt(root, dir, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return nil, fmt.Errorf("cannot look at %s: %w", dir, err)
		}
		var st unix.Stat_t
		err = unix.Fstat(fd, &st)
		unix.Close(fd)
		if err != nil {
			return nil, fmt.Errorf("cannot look at %s: %w", dir, err)
		}
		out = append(out, uint64(st.Dev))
	}
	return out, nil
}

// diskUsed is how many bytes the file systems at these directories hold.
func diskUsed(pid int, container string, dirs []string) (int64, error) {
	root, err := openRoot(pid, container)
	if err != nil {
		return 0, err
	}
	defer unix.Close(root)
	var used int64
	for _, dir := range dirs {
		fd, err := openAt(root, dir, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return 0, fmt.Errorf("cannot look at %s: %w", dir, err)
		}
		var st unix.Statfs_t
		err = unix.Fstatfs(fd, &st)
		unix.Close(fd)
		if err != nil {
			return 0, fmt.Errorf("cannot look at %s: %w", dir, err)
		}
		used += int64(st.Blocks-st.Bfree) * st.Bsize
	}
	return used, nil
}

// networkUsed is how many bytes a container has received and sent, its loopback left out.
func networkUsed(pid int, container string) (received, sent int64, err error) {
	table, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "net", "dev"))
	if err != nil {
		return 0, 0, fmt.Errorf("cannot read the container's devices: %w", err)
	}
	if !belongs(pid, container) {
		return 0, 0, errOtherProcess
	}
	received, sent = devices(table)
	return received, sent, nil
}

// devices adds up the bytes of a table as in /proc/net/dev: for each device its name, a
// colon, eight figures of what was received, and eight of what was sent, of each the
// bytes first.
func devices(table []byte) (received, sent int64) {
	for line := range bytes.Lines(table) {
		name, figures, ok := strings.Cut(string(line), ":")
		f := strings.Fields(figures)
		if !ok || len(f) < 9 || strings.TrimSpace(name) == "lo" {
			continue
		}
		in, err1 := strconv.ParseInt(f[0], 10, 64)
		out, err2 := strconv.ParseInt(f[8], 10, 64)
		if err1 == nil && err2 == nil {
			received, sent = received+in, sent+out
		}
	}
	return received, sent
}

// upSince is how long this machine has been up; a year if it does not say.
func upSince() time.Duration {
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) != nil {
		return 365 * 24 * time.Hour
	}
	return time.Duration(now.Nano())
}
