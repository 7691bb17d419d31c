package docker

import (
	"os"
	"runtime"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"golang.org/x/sys/unix"
)

// This file is what the process that copies may ask of the kernel: to read and write
// files, and what the Go runtime needs. No sockets, processes or programs, whatever an
// archive may have talked it into.

func filterSyscalls() error {
	// no_new_privs belongs to a thread; TSYNC hands it to all others with the filter.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return seccomp.LoadFilter(seccomp.Filter{NoNewPrivs: true, Flag: seccomp.FilterFlagTSync, Policy: copyPolicy()})
}

func copyPolicy() seccomp.Policy {
	self := uint64(os.Getpid())
	allow := []string{
		// files
		"close", "copy_file_range", "dup3", "fchmod", "fchmodat", "fchmodat2", "fcntl", "fstat", "fstatfs", "ftruncate", "getcwd", "getdents64",
		"lseek", "mkdirat", "openat", "openat2", "pread64", "pwrite64", "read", "readlinkat", "readv", "splice", "statx", "symlinkat",
		"unlinkat", "utimensat", "write", "writev",
		// the runtime
		"brk", "madvise", "mincore", "mmap", "mprotect", "mremap", "munmap",
		"epoll_create1", "epoll_ctl", "epoll_pwait", "eventfd2", "pipe2",
		"clock_getres", "clock_gettime", "clock_nanosleep", "futex", "gettimeofday", "membarrier", "nanosleep", "restart_syscall", "rseq",
		"sched_getaffinity", "sched_yield", "set_robust_list",
		"exit", "exit_group", "getegid", "geteuid", "getgid", "getpid", "getppid", "getrandom", "gettid", "getuid",
		"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "uname",
	}
	if runtime.GOARCH == "amd64" {
		allow = append(allow, "arch_prctl", "newfstatat")
	} else {
		allow = append(allow, "fstatat")
	}
	return seccomp.Policy{
		DefaultAction: seccomp.ActionErrno,
		Syscalls: []seccomp.SyscallGroup{{
			// clone3 hides its flags from a filter; callers fall back to clone.
			Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS),
			Names:  []string{"clone3"},
		}, {
			Action: seccomp.ActionAllow,
			Names:  allow,
			NamesWithCondtions: []seccomp.NameWithConditions{
				// A thread of this process, never another process.
				{Name: "clone", Conditions: seccomp.ArgumentConditions{{Argument: 0, Operation: seccomp.BitsSet, Value: unix.CLONE_THREAD}}},
				// Signals to its own threads: how the Go runtime preempts.
				{Name: "tgkill", Conditions: seccomp.ArgumentConditions{{Argument: 0, Operation: seccomp.Equal, Value: self}}},
				// Naming memory, which the Go runtime does; no other use.
				{Name: "prctl", Conditions: seccomp.ArgumentConditions{{Argument: 0, Operation: seccomp.Equal, Value: unix.PR_SET_VMA}}},
			},
		}},
	}
}
