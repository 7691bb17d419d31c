package jail

import (
	"errors"
	"fmt"
	"io/fs"
	"unsafe"

	"golang.org/x/sys/unix"
)

// RestrictThread takes from the calling thread, and from what it starts, all files
// but those that a worker needs: its own below root, and for reading what the
// program at exe is made of. On newer kernels TCP, abstract sockets and signals to
// others go as well. It also gives way to the rest of the machine. It cannot be undone: the caller has locked the thread to its
// goroutine, and lets the thread end with it.
//
// It is done before the program starts, and not by the program, because it holds
// for one thread, and a Go program has several before its first line runs.
func RestrictThread(root, exe string) (Applied, error) {
	var a Applied
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, niceness); err != nil { // of this thread
		return a, fmt.Errorf("cannot lower the priority: %w", err)
	}
	abi, err := landlockABI()
	if err != nil {
		a.missing(landlockWhat, err)
		return a, nil
	}
	rules := unix.LandlockRulesetAttr{Handled_access_fs: handled(abi)}
	if abi >= 4 {
		rules.Handled_access_net = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
	}
	if abi >= 6 {
		rules.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
	}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&rules)), unsafe.Sizeof(rules), 0)
	if errno != 0 {
		return a, fmt.Errorf("cannot make a Landlock ruleset: %w", errno)
	}
	defer unix.Close(int(fd))
	allow := []struct {
		path     string
		rights   uint64
		required bool
	}{
		{root, ownFiles & rules.Handled_access_fs, true},
		{exe, unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE, true},
		// For a program that is linked dynamically.
		{"/lib", libraries, false},
		{"/lib64", libraries, false},
		{"/usr/lib", libraries, false},
		{"/usr/lib64", libraries, false},
		{"/etc/ld.so.cache", unix.LANDLOCK_ACCESS_FS_READ_FILE, false},
		// Of another process, Landlock shows nothing there that tracing would not show.
		{"/proc", unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR, false},
		{"/dev/null", unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE, false},
	}
	for _, r := range allow {
		if err := allowBeneath(int(fd), r.path, r.rights); err != nil && (r.required || !errors.Is(err, fs.ErrNotExist)) {
			return a, fmt.Errorf("cannot allow %s in a Landlock ruleset: %w", r.path, err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return a, fmt.Errorf("cannot set no_new_privs: %w", err)
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); errno != 0 {
		return a, fmt.Errorf("cannot apply a Landlock ruleset: %w", errno)
	}
	a.held(landlockWhat)
	return a, nil
}

// niceness keeps guests that compute from making peerd slow to answer.
const niceness = 5

const landlockWhat = "no files but its own (Landlock)"

const (
	libraries = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	ownFiles  = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR |
		unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG |
		unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_TRUNCATE
)

// handled is what a ruleset can take away, by the version of the kernel's interface.
func handled(abi int) uint64 {
	rights := uint64(unix.LANDLOCK_ACCESS_FS_MAKE_SYM<<1 - 1)
	if abi >= 2 {
		rights |= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if abi >= 3 {
		rights |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if abi >= 5 {
		rights |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	return rights
}

func landlockABI() (int, error) {
	v, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0, errNoLandlock
	}
	return int(v), nil
}

func allowBeneath(ruleset int, path string, rights uint64) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	rule := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(fd)}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
