package main

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// call is one system call with arguments that are harmless if it is let through
// and, where there are such, that a kernel without a filter would not answer with
// the filter's error.
type call struct {
	name string
	no   uintptr
	args [6]uintptr
}

func syscalls(t table) {
	self := uintptr(os.Getpid())
	path := uintptr(unsafe.Pointer(unsafe.StringData("/tmp\x00")))
	name := uintptr(unsafe.Pointer(unsafe.StringData("probe\x00")))
	none := ^uintptr(0)
	calls := []call{
		{"mount", unix.SYS_MOUNT, [6]uintptr{0, path, 0, unix.MS_BIND, 0}},
		{"umount2", unix.SYS_UMOUNT2, [6]uintptr{path, 0}},
		{"pivot_root", unix.SYS_PIVOT_ROOT, [6]uintptr{path, path}},
		{"chroot", unix.SYS_CHROOT, [6]uintptr{path}},
		{"fsopen", unix.SYS_FSOPEN, [6]uintptr{0}},
		{"fsconfig", unix.SYS_FSCONFIG, [6]uintptr{none}},
		{"fsmount", unix.SYS_FSMOUNT, [6]uintptr{none}},
		{"fspick", unix.SYS_FSPICK, [6]uintptr{none, path}},
		{"move_mount", unix.SYS_MOVE_MOUNT, [6]uintptr{none}},
		{"open_tree", unix.SYS_OPEN_TREE, [6]uintptr{none, path}},
		{"mount_setattr", unix.SYS_MOUNT_SETATTR, [6]uintptr{none}},
		{"unshare nothing", unix.SYS_UNSHARE, [6]uintptr{0}},
		{"unshare user namespace", unix.SYS_UNSHARE, [6]uintptr{unix.CLONE_NEWUSER}},
		{"setns", unix.SYS_SETNS, [6]uintptr{none, 0}},
		{"clone user namespace", unix.SYS_CLONE, [6]uintptr{unix.CLONE_NEWUSER | unix.CLONE_THREAD}}, // invalid even if let through
		{"clone3", unix.SYS_CLONE3, [6]uintptr{0, 0}},
		{"ptrace", unix.SYS_PTRACE, [6]uintptr{unix.PTRACE_TRACEME}},
		{"process_vm_readv", unix.SYS_PROCESS_VM_READV, [6]uintptr{self}},
		{"process_vm_writev", unix.SYS_PROCESS_VM_WRITEV, [6]uintptr{self}},
		{"kcmp", unix.SYS_KCMP, [6]uintptr{self, self, 1}},
		{"pidfd_open", unix.SYS_PIDFD_OPEN, [6]uintptr{self}},
		{"pidfd_getfd", unix.SYS_PIDFD_GETFD, [6]uintptr{none}},
		{"pidfd_send_signal", unix.SYS_PIDFD_SEND_SIGNAL, [6]uintptr{none}},
		{"io_uring_setup", unix.SYS_IO_URING_SETUP, [6]uintptr{1, 0}},
		{"io_uring_enter", unix.SYS_IO_URING_ENTER, [6]uintptr{none}},
		{"io_uring_register", unix.SYS_IO_URING_REGISTER, [6]uintptr{none}},
		{"bpf", unix.SYS_BPF, [6]uintptr{none, 0, 0}},
		{"perf_event_open", unix.SYS_PERF_EVENT_OPEN, [6]uintptr{0, 0, none, none, 0}},
		{"userfaultfd", unix.SYS_USERFAULTFD, [6]uintptr{1}},
		{"memfd_create", unix.SYS_MEMFD_CREATE, [6]uintptr{name}},
		{"memfd_secret", unix.SYS_MEMFD_SECRET, [6]uintptr{}},
		{"vmsplice", unix.SYS_VMSPLICE, [6]uintptr{none}},
		{"keyctl", unix.SYS_KEYCTL, [6]uintptr{0, none, 0}},
		{"add_key", unix.SYS_ADD_KEY, [6]uintptr{0, 0}},
		{"request_key", unix.SYS_REQUEST_KEY, [6]uintptr{0, 0}},
		{"seccomp", unix.SYS_SECCOMP, [6]uintptr{2, 0, 0}},
		{"prctl PR_SET_SECCOMP", unix.SYS_PRCTL, [6]uintptr{unix.PR_SET_SECCOMP, 2, 0}},
		{"personality without address randomisation", unix.SYS_PERSONALITY, [6]uintptr{0x40000}},
		{"name_to_handle_at", unix.SYS_NAME_TO_HANDLE_AT, [6]uintptr{none, path}},
		{"open_by_handle_at", unix.SYS_OPEN_BY_HANDLE_AT, [6]uintptr{none}},
		{"init_module", unix.SYS_INIT_MODULE, [6]uintptr{}},
		{"finit_module", unix.SYS_FINIT_MODULE, [6]uintptr{none}},
		{"delete_module", unix.SYS_DELETE_MODULE, [6]uintptr{0}},
		{"kexec_load", unix.SYS_KEXEC_LOAD, [6]uintptr{}},
		{"reboot", unix.SYS_REBOOT, [6]uintptr{0, 0, 0}},
		{"swapon", unix.SYS_SWAPON, [6]uintptr{path}},
		{"syslog", unix.SYS_SYSLOG, [6]uintptr{10}},
		{"acct", unix.SYS_ACCT, [6]uintptr{path}},
		{"quotactl", unix.SYS_QUOTACTL, [6]uintptr{none}},
		{"settimeofday", unix.SYS_SETTIMEOFDAY, [6]uintptr{0, 0}},
		{"clock_settime", unix.SYS_CLOCK_SETTIME, [6]uintptr{none}},
		{"adjtimex", unix.SYS_ADJTIMEX, [6]uintptr{0}},
		{"sethostname", unix.SYS_SETHOSTNAME, [6]uintptr{name, 5}},
		{"setdomainname", unix.SYS_SETDOMAINNAME, [6]uintptr{name, 5}},
		{"fanotify_init", unix.SYS_FANOTIFY_INIT, [6]uintptr{none}},
		{"lookup_dcookie", unix.SYS_LOOKUP_DCOOKIE, [6]uintptr{}},
		{"mbind", unix.SYS_MBIND, [6]uintptr{}},
		{"set_mempolicy", unix.SYS_SET_MEMPOLICY, [6]uintptr{}},
		{"get_mempolicy", unix.SYS_GET_MEMPOLICY, [6]uintptr{}},
		{"migrate_pages", unix.SYS_MIGRATE_PAGES, [6]uintptr{self}},
		{"move_pages", unix.SYS_MOVE_PAGES, [6]uintptr{}},
		{"remap_file_pages", unix.SYS_REMAP_FILE_PAGES, [6]uintptr{}},
		{"vhangup", unix.SYS_VHANGUP, [6]uintptr{}},
		{"msgget", unix.SYS_MSGGET, [6]uintptr{0, 0o1600}},
		{"mq_open", unix.SYS_MQ_OPEN, [6]uintptr{name, unix.O_CREAT | unix.O_RDWR, 0o600, 0}},
		{"mknodat device", unix.SYS_MKNODAT, [6]uintptr{none, path, unix.S_IFCHR | 0o600, 0}},
		{"landlock_create_ruleset", unix.SYS_LANDLOCK_CREATE_RULESET, [6]uintptr{0, 0, 1}},
		{"socketpair TIPC", unix.SYS_SOCKETPAIR, [6]uintptr{30, 1, 0, 0}},
		{"setuid root", unix.SYS_SETUID, [6]uintptr{0}},
		{"setgid root", unix.SYS_SETGID, [6]uintptr{0}},
	}
	for _, c := range append(calls, amd64Calls()...) {
		_, _, no := syscall.RawSyscall6(c.no, c.args[0], c.args[1], c.args[2], c.args[3], c.args[4], c.args[5])
		if no == 0 {
			t.try("syscall "+c.name, nil)
			continue
		}
		t.try("syscall "+c.name, no)
	}
}
