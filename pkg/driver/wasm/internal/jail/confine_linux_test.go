package jail

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"peercompute/pkg/testkit"
)

// Arguments that make the test binary something to test with.
const (
	confinedArg = "confined"
	eatArg      = "eat"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == confinedArg {
		confined(os.Args[2])
		os.Exit(0)
	}
	if len(os.Args) > 1 && os.Args[1] == eatArg {
		eat()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// attempts are what code that broke out of a guest would try. A value is what it
// must come to.
var attempts = []struct {
	name string
	try  func() error
	want error
}{
	{"an internet socket", func() error { return second(unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)) }, unix.EPERM},
	{"a unix socket", func() error { return second(unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)) }, unix.EPERM},
	{"a netlink socket", func() error { return second(unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, 0)) }, unix.EPERM},
	{"a program", func() error { return unix.Exec("/proc/self/no-such-program", []string{"x"}, nil) }, unix.EPERM},
	{"a process", fork, unix.EPERM},
	{"a process, by the newer call", func() error { return raw(unix.SYS_CLONE3, 0, 0, 0) }, unix.ENOSYS},
	{"tracing", func() error { return raw(unix.SYS_PTRACE, unix.PTRACE_TRACEME, 0, 0) }, unix.EPERM},
	{"another's memory", func() error { return raw(unix.SYS_PROCESS_VM_READV, 1, 0, 0) }, unix.EPERM},
	{"a signal to another", func() error { return unix.Kill(os.Getppid(), 0) }, unix.EPERM},
	{"a mount", func() error { return unix.Mount("none", "/", "tmpfs", 0, "") }, unix.EPERM},
	{"a namespace", func() error { return unix.Unshare(unix.CLONE_NEWUSER) }, unix.EPERM},
	{"another root", func() error { return unix.Chroot(".") }, unix.EPERM},
	{"a device", func() error { return unix.Mknod("/null", unix.S_IFCHR, 0) }, unix.EPERM},
	{"io_uring", func() error { return raw(unix.SYS_IO_URING_SETUP, 1, 0, 0) }, unix.EPERM},
	{"bpf", func() error { return raw(unix.SYS_BPF, 0, 0, 0) }, unix.EPERM},
	{"perf events", func() error { return raw(unix.SYS_PERF_EVENT_OPEN, 0, 0, 0) }, unix.EPERM},
	{"a key", func() error { return raw(unix.SYS_KEYCTL, 0, 0, 0) }, unix.EPERM},
	{"a userfaultfd", func() error { return raw(unix.SYS_USERFAULTFD, 0, 0, 0) }, unix.EPERM},
	{"a memory file", func() error { return second(unix.MemfdCreate("x", 0)) }, unix.EPERM},
	{"being dumped", func() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) }, unix.EPERM},
	{"another's limits", func() error { return unix.Prlimit(os.Getppid(), unix.RLIMIT_CORE, nil, &unix.Rlimit{}) }, unix.EPERM},
	{"root again", func() error { return raw(unix.SYS_SETUID, 0, 0, 0) }, unix.EPERM},
	{"a thread", func() error { // which is allowed: the Go runtime needs it
		done := make(chan struct{})
		go func() { runtime.LockOSThread(); close(done) }() // the thread ends with the goroutine
		<-done
		return nil
	}, nil},
	{"memory that can be executed", func() error { // which is allowed: the compiler needs it
		b, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		if err != nil {
			return err
		}
		return unix.Mprotect(b, unix.PROT_READ|unix.PROT_EXEC)
	}, nil},
}

// others are files of others, which must not be read.
var others = []struct {
	name string
	try  func() error
}{
	{"the password file", func() error { return second(os.ReadFile("/etc/passwd")) }},
	{"the way up", func() error { return second(os.ReadFile("../../../../../../../../etc/passwd")) }},
	{"another process's environment", func() error { return second(os.ReadFile(fmt.Sprintf("/proc/%d/environ", os.Getppid()))) }},
	{"another process's files", func() error { return second(os.ReadFile(fmt.Sprintf("/proc/%d/root/etc/passwd", os.Getppid()))) }},
	{"a file elsewhere", func() error { return os.WriteFile(filepath.Join(os.TempDir(), "elsewhere"), nil, 0o600) }},
}

func second[T any](_ T, err error) error { return err }

func raw(trap, a, b, c uintptr) error {
	if _, _, e := syscall.RawSyscall6(trap, a, b, c, 0, 0, 0); e != 0 {
		return e
	}
	return nil
}

// ownFile must work.
const ownFile = "a file of its own"

// fork makes a process, which ends at once.
func fork() error {
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	if pid == 0 {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
	return nil
}

// report is what the confined process found.
type report struct {
	Held   []string
	Errors map[string]int // attempt → errno, 0 = it worked, -1 = another error
}

func confined(root string) {
	a, err := Confine(Config{Root: root})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	r := report{Held: a.Held, Errors: map[string]int{}}
	note := func(name string, err error) {
		var errno syscall.Errno
		switch {
		case err == nil:
			r.Errors[name] = 0
		case errors.As(err, &errno):
			r.Errors[name] = int(errno)
		default:
			r.Errors[name] = -1
		}
	}
	note(ownFile, os.WriteFile(filepath.Join(a.Root, "here"), []byte("x"), 0o600))
	for _, at := range attempts {
		note(at.name, at.try())
	}
	for _, at := range others {
		note(at.name, at.try())
	}
	_ = json.NewEncoder(os.Stdout).Encode(r)
}

func TestConfineLeavesNothingToDo(t *testing.T) {
	t.Run("as peerd's user", func(t *testing.T) { tryAll(t, nil) })
	t.Run("as an ordinary user", func(t *testing.T) {
		testkit.Need(t, "root")
		tryAll(t, &syscall.Credential{Uid: Nobody, Gid: Nobody})
	})
	t.Run("without Landlock", func(t *testing.T) {
		testkit.Need(t, "root")
		tryAll(t, nil, "no Landlock")
	})
}

// tryAll starts a confined process, restricted before as a worker is, and looks
// at what came of its attempts.
func tryAll(t *testing.T, as *syscall.Credential, without ...string) {
	root, err := os.MkdirTemp("", "jail") // not t.TempDir(), which others cannot enter
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(root)
	if err := os.Chmod(root, 0o777); err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(root, "..", filepath.Base(root)+".exe") // where others can reach it
	b, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(exe, b, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(exe)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, exe, confinedArg, root)
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	cmd.Env = []string{}
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	started := make(chan error, 1)
	var a Applied
	go func() {
		runtime.LockOSThread()
		var err error
		if len(without) == 0 {
			a, err = RestrictThread(root, exe)
		}
		if err == nil {
			err = cmd.Start()
		}
		started <- err
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, &errs)
	}
	var r report
	if err := json.Unmarshal([]byte(out.String()), &r); err != nil {
		t.Fatalf("%v: %s", err, &out)
	}
	for _, at := range attempts {
		want := 0
		if at.want != nil {
			want = int(at.want.(syscall.Errno))
		}
		if got := r.Errors[at.name]; got != want {
			t.Errorf("%s: got errno %d (%v), want %d", at.name, got, syscall.Errno(got), want)
		}
	}
	if got := r.Errors[ownFile]; got != 0 {
		t.Errorf("%s: got %v", ownFile, syscall.Errno(got))
	}
	if len(a.Missing) > 0 && (os.Getuid() != 0 || as != nil) {
		t.Skip("needs Landlock, which this kernel does not have")
	}
	for _, at := range others {
		if got, tried := r.Errors[at.name]; !tried || got == 0 {
			t.Errorf("%s: it could", at.name)
		}
	}
	if len(r.Held) == 0 {
		t.Error("it says that nothing is held")
	}
}

func TestGroup(t *testing.T) {
	testkit.Need(t, "root")
	base := ""
	for _, dir := range []string{"/sys/fs/cgroup/memory", "/sys/fs/cgroup"} {
		d := fmt.Sprintf("%s/peercompute-jailtest-%d", dir, os.Getpid())
		if _, err := os.Stat(dir + "/cgroup.procs"); err == nil && os.Mkdir(d, 0o755) == nil {
			defer os.Remove(d)
			base = d
			break
		}
	}
	if base == "" {
		t.Skip("needs a memory control group that can be written")
	}
	g, err := NewGroup(base, "a", 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], eatArg)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := g.Add(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	in.Close() // now it eats
	if err := cmd.Wait(); err == nil {
		t.Error("it outgrew its group")
	}
	if g.Kills() == 0 {
		t.Error("no kill was counted")
	}
	if err := g.Remove(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := NewGroup(base, "stale", 1<<20); err != nil {
		t.Fatal(err)
	}
	RemoveStale(base, func(name string) bool { return name == "stale" })
	if _, err := os.Stat(base + "/" + prefix + "stale"); err == nil {
		t.Error("a stale group is left")
	}
}

// eat uses more memory than the group of TestGroup may.
func eat() {
	var b [1]byte
	_, _ = os.Stdin.Read(b[:]) // until the group is set up
	eaten := make([]byte, 256<<20)
	for i := 0; i < len(eaten); i += 4096 {
		eaten[i] = 1
	}
	runtime.KeepAlive(eaten)
}
