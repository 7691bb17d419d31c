package jail

import (
	"os"
	"runtime"
	"slices"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"golang.org/x/sys/unix"
)

// policy allows what the Go runtime, wazero and the worker's own reads and writes
// need, and refuses the rest with EPERM: making sockets, processes and programs,
// tracing, mounting, namespaces, keys, io_uring, bpf, and whatever a kernel adds
// later. clone3 hides its flags from a filter, so it is said not to exist, and
// callers fall back to clone.
func policy() seccomp.Policy {
	self := uint64(os.Getpid())
	allow := slices.Concat(memory, files, descriptors, scheduling, process)
	if runtime.GOARCH == "amd64" {
		allow = append(allow, onlyAMD64...)
	}
	return seccomp.Policy{
		DefaultAction: seccomp.ActionErrno,
		Syscalls: []seccomp.SyscallGroup{{
			Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS),
			Names:  []string{"clone3", "openat2", "faccessat2"},
		}, {
			Action: seccomp.ActionAllow,
			Names:  allow,
			NamesWithCondtions: []seccomp.NameWithConditions{
				// A thread of this process, never another process.
				{Name: "clone", Conditions: seccomp.ArgumentConditions{{Argument: 0, Operation: seccomp.BitsSet, Value: unix.CLONE_THREAD}}},
				// Signals to its own threads: how the Go runtime preempts.
				{Name: "tgkill", Conditions: seccomp.ArgumentConditions{{Argument: 0, Operation: seccomp.Equal, Value: self}}},
				{Name: "kill", Conditions: seccomp.ArgumentConditions{{Argument: 0, Operation: seccomp.Equal, Value: self}}},
				// Limits of its own, which it can only lower.
				{Name: "prlimit64", Conditions: seccomp.ArgumentConditions{{Argument: 0, Operation: seccomp.Equal, Value: 0}}},
				// Naming memory, which the Go runtime does; no other use.
				{Name: "prctl", Conditions: seccomp.ArgumentConditions{{Argument: 0, Operation: seccomp.Equal, Value: unix.PR_SET_VMA}}},
			},
		}},
	}
}

var (
	memory = []string{"brk", "madvise", "mincore", "mmap", "mprotect", "mremap", "munmap"}
	files  = []string{
		"close", "fchmod", "fchmodat", "fcntl", "fdatasync", "fstat", "fstatfs", "fsync", "ftruncate", "getcwd", "getdents64", "lseek",
		"mkdirat", "openat", "pread64", "pwrite64", "read", "readlinkat", "readv", "renameat", "statx", "unlinkat", "write", "writev",
		"copy_file_range",
	}
	descriptors = []string{
		"dup", "dup3", "epoll_create1", "epoll_ctl", "epoll_pwait", "eventfd2", "getpeername", "getsockname", "getsockopt", "pipe2",
		"ppoll", "recvfrom", "recvmsg", "sendmsg", "sendto", "setsockopt", "shutdown", "splice",
	}
	scheduling = []string{
		"clock_getres", "clock_gettime", "clock_nanosleep", "futex", "gettimeofday", "nanosleep", "restart_syscall", "sched_getaffinity",
		"sched_yield", "set_robust_list", "rseq", "membarrier",
	}
	process = []string{
		"exit", "exit_group", "getegid", "geteuid", "getgid", "getpid", "getppid", "getrandom", "getrusage", "gettid", "getuid",
		"rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "sysinfo", "uname", "timer_create",
		"timer_delete", "timer_settime",
	}
	onlyAMD64 = []string{"access", "arch_prctl", "epoll_wait", "newfstatat", "poll", "readlink", "rename", "mkdir", "stat", "lstat", "unlink", "open", "pipe"}
)
