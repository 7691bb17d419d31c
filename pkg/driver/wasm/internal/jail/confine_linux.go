package jail

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"golang.org/x/sys/unix"
)

// Confine gives up whatever this process does not need. The order matters: each
// step needs rights that a later one takes away. It fails only if a measure that
// this machine does support could not be taken: a half confined worker must not
// see a guest.
func Confine(c Config) (Applied, error) {
	c = c.withDefaults()
	var a Applied
	for _, l := range []struct {
		what  string
		which int
		max   uint64
	}{{"core", unix.RLIMIT_CORE, 0}, {"nofile", unix.RLIMIT_NOFILE, c.Files}, {"fsize", unix.RLIMIT_FSIZE, c.File}} {
		if err := lower(l.which, l.max); err != nil {
			return a, fmt.Errorf("cannot limit %s: %w", l.what, err)
		}
	}
	a.held("rlimits: no core, open files, file size")
	if err := changeRoot(c, &a); err != nil {
		return a, err
	}
	// Both are reset by a change of user.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return a, fmt.Errorf("cannot become undumpable: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return a, fmt.Errorf("cannot ask to die with the parent: %w", err)
	}
	if err := filterSyscalls(&a); err != nil {
		return a, err
	}
	return a, nil
}

func lower(which int, limit uint64) error {
	var old syscall.Rlimit
	if err := syscall.Getrlimit(which, &old); err != nil {
		return err
	}
	limit = min(limit, old.Max)
	// Through package syscall, which otherwise raises nofile again at exec.
	return syscall.Setrlimit(which, &syscall.Rlimit{Cur: limit, Max: limit})
}

// changeRoot leaves the rest of the file system, and root's rights, behind. An
// ordinary user can do neither; there Landlock has taken its place before.
func changeRoot(c Config, a *Applied) error {
	if os.Geteuid() != 0 {
		a.Root = c.Root
		a.missing("own root directory and user", errNotRoot)
		return os.Chdir("/")
	}
	if err := syscall.Chroot(c.Root); err != nil {
		return fmt.Errorf("cannot change the root directory: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return fmt.Errorf("cannot enter the root directory: %w", err)
	}
	a.Root = "/"
	for _, step := range []func() error{
		func() error { return syscall.Setgroups(nil) },
		func() error { return syscall.Setresgid(c.UID, c.UID, c.UID) },
		func() error { return syscall.Setresuid(c.UID, c.UID, c.UID) },
	} {
		if err := step(); err != nil {
			return fmt.Errorf("cannot give up root: %w", err)
		}
	}
	a.held("root directory of its own, unprivileged user, no capabilities")
	return nil
}

func filterSyscalls(a *Applied) error {
	if !seccomp.Supported() {
		a.missing("system call filter", errNoSeccomp)
		return nil
	}
	f := seccomp.Filter{NoNewPrivs: true, Flag: seccomp.FilterFlagTSync, Policy: policy()}
	// no_new_privs belongs to a thread; TSYNC hands it to all others with the filter.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := seccomp.LoadFilter(f); err != nil {
		return fmt.Errorf("cannot install the system call filter: %w", err)
	}
	a.held("no new privileges, system call filter")
	return nil
}

// Sacrifice makes a process the first to go when the machine is short of memory.
func Sacrifice(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte("900"), 0)
}

// Missing is what RestrictThread, Confine and NewGroup will not be able to do on this machine
// with the rights of this process, one line each.
func Missing(groupParent string) []string {
	var a Applied
	if os.Geteuid() != 0 {
		a.missing("own root directory and user", errNotRoot)
	}
	if _, err := landlockABI(); err != nil {
		a.missing(landlockWhat, err)
	}
	if !seccomp.Supported() {
		a.missing("system call filter", errNoSeccomp)
	}
	if _, _, err := parentGroup(groupParent); err != nil {
		a.missing("memory group", err)
	}
	return a.Missing
}

var (
	errNotRoot   = errors.New("peerd does not run as root")
	errNoSeccomp = errors.New("this kernel has no seccomp")

	errNoLandlock = errors.New("this kernel has no Landlock, or has it turned off")
)
