package docker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"peercompute/pkg/driver/docker"
	"peercompute/pkg/testkit"
)

func raw(trap, a, b, c uintptr) error {
	if _, _, e := syscall.RawSyscall6(trap, a, b, c, 0, 0, 0); e != 0 {
		return e
	}
	return nil
}

func second[T any](_ T, err error) error { return err }

// attempts are what an archive that took the process over would try. Those that any
// user may make, so that only the filter refuses them.
var attempts = map[string]struct {
	try  func() error
	want error
}{
	"an internet socket":     {func() error { return second(unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)) }, unix.EPERM},
	"a unix socket":          {func() error { return second(unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)) }, unix.EPERM},
	"a netlink socket":       {func() error { return second(unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, 0)) }, unix.EPERM},
	"a program":              {func() error { return unix.Exec("/no-such-program", []string{"x"}, nil) }, unix.EPERM},
	"a process, newly":       {func() error { return raw(unix.SYS_CLONE3, 0, 0, 0) }, unix.ENOSYS},
	"tracing":                {func() error { return raw(unix.SYS_PTRACE, unix.PTRACE_SEIZE, 1<<30, 0) }, unix.EPERM}, // nobody's ID
	"another's memory":       {func() error { return raw(unix.SYS_PROCESS_VM_READV, 1, 0, 0) }, unix.EPERM},
	"a signal to itself":     {func() error { return unix.Kill(os.Getpid(), 0) }, unix.EPERM},
	"a namespace":            {func() error { return unix.Unshare(unix.CLONE_NEWUSER) }, unix.EPERM},
	"a pipe in the files":    {func() error { return unix.Mkfifo("/no-such-directory/pipe", 0o600) }, unix.EPERM},
	"io_uring":               {func() error { return raw(unix.SYS_IO_URING_SETUP, 1, 0, 0) }, unix.EPERM},
	"a memory file":          {func() error { return second(unix.MemfdCreate("x", 0)) }, unix.EPERM},
	"a handle on a process":  {func() error { return second(unix.PidfdOpen(os.Getpid(), 0)) }, unix.EPERM},
	"being dumped":           {func() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) }, unix.EPERM},
	"a thread, which it may": {newThread, nil},
	"a file, which it may":   {func() error { return second(os.ReadFile("/proc/self/stat")) }, nil},
}

func newThread() error {
	done := make(chan struct{})
	go func() { runtime.LockOSThread(); close(done) }() // the thread ends with the goroutine
	<-done
	return nil
}

// tryConfined becomes what the process that copies becomes, and says what its attempts
// came to: an errno, 0 for success.
func tryConfined() {
	const nobody = 65534
	if err := docker.Become(nobody, nobody); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	got := map[string]int{}
	for name, a := range attempts {
		var errno syscall.Errno
		if err := a.try(); err != nil && !errors.As(err, &errno) {
			errno = ^syscall.Errno(0)
		}
		got[name] = int(errno)
	}
	_ = json.NewEncoder(os.Stdout).Encode(got)
}

func TestCopyingAsksLittleOfTheKernel(t *testing.T) {
	testkit.Need(t, "root")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], confinedArg)
	cmd.Stderr = t.Output()
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]int
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("it said %q: %v", out, err)
	}
	for name, a := range attempts {
		want := syscall.Errno(0)
		errors.As(a.want, &want)
		if n, ok := got[name]; !ok || syscall.Errno(n) != want {
			t.Errorf("%s: %v, want %v", name, syscall.Errno(n), want)
		}
	}
}
