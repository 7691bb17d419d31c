package seccomp_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"

	"peercompute/seccomp"
)

var update = flag.Bool("update", false, "rewrite the golden file; read the difference before committing it")

type arg struct {
	Index    int    `json:"index"`
	Value    uint64 `json:"value"`
	ValueTwo uint64 `json:"valueTwo"`
	Op       string `json:"op"`
}

type rule struct {
	Comment  string   `json:"comment"`
	Names    []string `json:"names"`
	Action   string   `json:"action"`
	ErrnoRet int      `json:"errnoRet"`
	Args     []arg    `json:"args"`
}

type profile struct {
	DefaultAction   string `json:"defaultAction"`
	DefaultErrnoRet int    `json:"defaultErrnoRet"`
	ArchMap         []struct {
		Architecture     string   `json:"architecture"`
		SubArchitectures []string `json:"subArchitectures"`
	} `json:"archMap"`
	Syscalls []rule `json:"syscalls"`
}

func parse(t *testing.T) profile {
	t.Helper()
	var p profile
	d := json.NewDecoder(strings.NewReader(seccomp.Profile()))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		t.Fatal(err)
	}
	return p
}

// matches reports whether a call with these arguments meets all conditions.
func (r rule) matches(t *testing.T, args []uint64) bool {
	for _, a := range r.Args {
		v := uint64(0)
		if a.Index < len(args) {
			v = args[a.Index]
		}
		switch a.Op {
		case "SCMP_CMP_EQ":
			if v != a.Value {
				return false
			}
		case "SCMP_CMP_NE":
			if v == a.Value {
				return false
			}
		case "SCMP_CMP_MASKED_EQ":
			if v&a.Value != a.ValueTwo {
				return false
			}
		default:
			t.Fatalf("operator %q is not one of ours", a.Op)
		}
	}
	return true
}

// decide says what becomes of a call: "allow", "EPERM" or "ENOSYS".
func (p profile) decide(t *testing.T, name string, args ...uint64) string {
	for _, r := range p.Syscalls {
		if slices.Contains(r.Names, name) && r.matches(t, args) {
			return r.outcome()
		}
	}
	return rule{Action: p.DefaultAction, ErrnoRet: p.DefaultErrnoRet}.outcome()
}

func (r rule) outcome() string {
	switch {
	case r.Action == "SCMP_ACT_ALLOW":
		return "allow"
	case r.Action == "SCMP_ACT_ERRNO" && r.ErrnoRet == 1:
		return "EPERM"
	case r.Action == "SCMP_ACT_ERRNO" && r.ErrnoRet == 38:
		return "ENOSYS"
	}
	return fmt.Sprintf("%s/%d", r.Action, r.ErrnoRet)
}

func TestNotableCalls(t *testing.T) {
	p := parse(t)
	const (
		unix, inet, inet6            = 1, 2, 10
		stream, dgram, raw, seq      = 1, 2, 3, 5
		cloexec                      = 0x80000
		threadFlags                  = 0x3d0f00 // what pthread_create passes
		newNS, newUser, newNet       = 0x20000, 0x10000000, 0x40000000
		modeFIFO, modeChar, modeFile = 0x1000, 0x2000, 0x8000
	)
	for _, c := range []struct {
		want string
		name string
		args []uint64
	}{
		{"allow", "socket", []uint64{unix, stream | cloexec}},
		{"allow", "socket", []uint64{unix, seq}},
		{"allow", "socket", []uint64{inet, stream | cloexec, 6}},
		{"allow", "socket", []uint64{inet6, stream}},
		{"allow", "socket", []uint64{inet, dgram, 17}},
		{"EPERM", "socket", []uint64{inet, raw, 1}},
		{"EPERM", "socket", []uint64{inet, dgram, 1}},    // ICMP
		{"EPERM", "socket", []uint64{inet, stream, 132}}, // SCTP
		{"EPERM", "socket", []uint64{inet, stream, 262}}, // MPTCP
		{"EPERM", "socket", []uint64{inet6, raw, 58}},
		{"EPERM", "socket", []uint64{16, raw}},    // AF_NETLINK
		{"EPERM", "socket", []uint64{17, raw}},    // AF_PACKET
		{"EPERM", "socket", []uint64{38, seq}},    // AF_ALG
		{"EPERM", "socket", []uint64{40, stream}}, // AF_VSOCK
		{"EPERM", "socket", []uint64{44, raw}},    // AF_XDP
		{"EPERM", "socket", []uint64{0, stream}},
		{"EPERM", "socket", []uint64{1<<32 | inet, stream}},
		{"allow", "socketpair", []uint64{unix, stream}},
		{"EPERM", "socketpair", []uint64{30, stream}}, // AF_TIPC
		{"ENOSYS", "socketcall", nil},
		{"allow", "clone", []uint64{threadFlags}},
		{"allow", "clone", []uint64{17}}, // fork
		{"EPERM", "clone", []uint64{newUser}},
		{"EPERM", "clone", []uint64{threadFlags | newNet}},
		{"EPERM", "clone", []uint64{newNS | 17}},
		{"ENOSYS", "clone3", nil},
		{"EPERM", "unshare", nil},
		{"EPERM", "setns", nil},
		{"EPERM", "prctl", []uint64{22}}, // PR_SET_SECCOMP
		{"allow", "prctl", []uint64{38}}, // PR_SET_NO_NEW_PRIVS
		{"EPERM", "seccomp", nil},
		{"allow", "mknodat", []uint64{0, 0, modeFIFO | 0o600}},
		{"EPERM", "mknodat", []uint64{0, 0, modeChar | 0o600}},
		{"EPERM", "mknodat", []uint64{0, 0, modeFile}},
		{"allow", "mknod", []uint64{0, modeFIFO}},
		{"EPERM", "mknod", []uint64{0, modeChar}},
		{"allow", "personality", []uint64{0}},
		{"allow", "personality", []uint64{0xffffffff}},
		{"EPERM", "personality", []uint64{0x0040000}}, // ADDR_NO_RANDOMIZE
		{"EPERM", "personality", []uint64{8}},
	} {
		if got := p.decide(t, c.name, c.args...); got != c.want {
			t.Errorf("%s%#x: got %s, want %s", c.name, c.args, got, c.want)
		}
	}
	for want, names := range map[string]string{
		"allow": "read write openat execve mmap mprotect futex epoll_pwait accept4 sendfile copy_file_range rt_sigaction " +
			"timer_create getrandom shmget semop kill wait4 rseq openat2 close_range statx faccessat2 inotify_add_watch",
		"ENOSYS": "io_uring_setup io_uring_enter io_uring_register pidfd_open pidfd_getfd pidfd_send_signal memfd_create memfd_secret userfaultfd vmsplice",
		"EPERM": "ptrace process_vm_readv process_vm_writev kcmp modify_ldt keyctl add_key request_key bpf perf_event_open " +
			"mount umount2 pivot_root chroot fsopen fsconfig fsmount fspick move_mount open_tree open_tree_attr mount_setattr statmount listmount " +
			"kexec_load kexec_file_load init_module finit_module delete_module reboot swapon swapoff syslog acct quotactl quotactl_fd " +
			"settimeofday clock_settime clock_adjtime adjtimex sethostname setdomainname iopl ioperm open_by_handle_at name_to_handle_at " +
			"fanotify_init lookup_dcookie msgget mq_open remap_file_pages uselib ustat sysfs nfsservctl vhangup mbind move_pages migrate_pages no_such_call",
	} {
		for _, name := range strings.Fields(names) {
			if got := p.decide(t, name); got != want {
				t.Errorf("%s: got %s, want %s", name, got, want)
			}
		}
	}
}

func TestDeniesByDefaultOn64BitOnly(t *testing.T) {
	p := parse(t)
	if p.DefaultAction != "SCMP_ACT_ERRNO" || p.DefaultErrnoRet != 1 {
		t.Errorf("default: got %s %d", p.DefaultAction, p.DefaultErrnoRet)
	}
	var got []string
	for _, a := range p.ArchMap {
		got = append(got, a.Architecture)
		if len(a.SubArchitectures) != 0 {
			t.Errorf("%s carries %v", a.Architecture, a.SubArchitectures)
		}
	}
	if want := []string{"SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"}; !slices.Equal(got, want) {
		t.Errorf("architectures: got %v, want %v", got, want)
	}
}

// The golden file says in one line per system call what becomes of it, so that
// no change of the profile goes unread.
func TestGolden(t *testing.T) {
	p := parse(t)
	known := map[string]bool{}
	for name := range arch.X86_64.SyscallNames {
		known[name] = true
	}
	for name := range arch.AARCH64.SyscallNames {
		known[name] = true
	}
	for _, r := range p.Syscalls {
		if r.Comment == "" {
			t.Errorf("the rule for %v does not say why", r.Names)
		}
		for _, name := range r.Names {
			if r.Action == "SCMP_ACT_ALLOW" && !known[name] && name != "fstatat" {
				t.Errorf("%s is allowed and no system call of amd64 or arm64", name)
			}
			known[name] = true
		}
	}
	var b bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(known)) {
		fmt.Fprintf(&b, "%-28s", name)
		none := true
		for _, r := range p.Syscalls {
			if !slices.Contains(r.Names, name) {
				continue
			}
			none = false
			fmt.Fprintf(&b, " %s", r.outcome())
			for i, a := range r.Args {
				sep := ","
				if i == 0 {
					sep = "("
				}
				switch a.Op {
				case "SCMP_CMP_EQ":
					fmt.Fprintf(&b, "%sarg%d=%d", sep, a.Index, a.Value)
				case "SCMP_CMP_NE":
					fmt.Fprintf(&b, "%sarg%d!=%d", sep, a.Index, a.Value)
				default:
					fmt.Fprintf(&b, "%sarg%d&%#x=%#x", sep, a.Index, a.Value, a.ValueTwo)
				}
			}
			if len(r.Args) > 0 {
				b.WriteString(")")
			}
		}
		if none {
			b.WriteString(" EPERM")
		}
		b.WriteString("\n")
	}
	const path = "testdata/decisions.golden"
	if *update {
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), want) {
		t.Errorf("the profile no longer decides as %s says; run with -update and read the difference", path)
	}
}
