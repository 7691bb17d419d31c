// Package seccomp is the system-call profile that every container of Peer
// Compute runs under: deny by default, with an allow-list for ordinary Linux
// servers (nginx, redis, postgres, Go and static programs) on amd64 and arm64.
// It is data and knows no engine; the format is Docker's JSON.
//
// A call that is not listed fails with EPERM. A call that programs probe for and
// do without fails with ENOSYS, so that they take the path for older kernels.
// There is no 32-bit ABI: a 32-bit entry ends the thread.
//
// Where it is tighter than the default profile of Docker 20.10, and why:
//
//	socket          only UNIX, and TCP and UDP over IPv4 and IPv6. The default
//	                opens AF_VSOCK (the hypervisor), AF_NETLINK (most network bugs
//	                of the kernel), AF_ALG, and loads SCTP, DCCP, MPTCP on demand.
//	                Go falls back from MPTCP; listing interfaces fails.
//	socketpair      only UNIX.
//	io_uring_*      a second way into most of the kernel that no filter sees.
//	ptrace,         reading and steering other processes; ours have none to debug.
//	process_vm_*,
//	kcmp
//	pidfd_*         handles on processes that pass between containers.
//	memfd_create,   memory that is executable although no file system is, and
//	memfd_secret    memory the host cannot see into.
//	userfaultfd,    tools of kernel exploits to stop the kernel where they like.
//	vmsplice
//	modify_ldt,     amd64 relics.
//	remap_file_pages
//	seccomp,        BPF programs of the guest's making in the kernel.
//	PR_SET_SECCOMP
//	mknod, mknodat  only named pipes.
//	msg*, mq_*      queues that outlive the process which filled them.
//	name_to_handle_at, mbind, set_mempolicy, get_mempolicy, lookup_dcookie,
//	adjtimex, chroot, landlock_*: nothing here needs them.
//
// As in that default, and kept by test: no mount family, no namespaces (clone
// with CLONE_NEW*, unshare, setns), no bpf, perf_event_open, keyctl, kexec,
// modules, clocks, swap, quota or reboot.
package seccomp

import _ "embed"

//go:embed profile.json
var profile string

// Profile is the profile as Docker takes it: the JSON text itself, as the value
// of the security option "seccomp=…".
func Profile() string { return profile }
