// Probe tries to leave the container it runs in, by everything that a container
// is denied, and prints what came of each attempt as one JSON object. "ok" means
// that it went through.
//
//	probe HOSTPORT ABSTRACT ADDRESS...
//
// HOSTPORT is a port on which the host listens at every address, ABSTRACT the
// name of an abstract UNIX socket it listens on, and the ADDRESSes are the host's.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
)

// table is what was tried and what came of it.
type table map[string]string

func (t table) try(what string, err error) { t[what] = outcome(err) }

// deny files an attempt to read or write under "refused", by whichever means: not
// there, read-only or forbidden differs between kernels and engines.
func (t table) deny(what string, err error) {
	got := outcome(err)
	switch got {
	case "ENOENT", "EROFS", "EACCES", "EPERM", "EISDIR", "ENXIO", "ENODEV":
		got = "refused"
	}
	t[what] = got
}

// outcome names an error by its errno, so that it reads alike on all machines.
func outcome(err error) string {
	var no syscall.Errno
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &no):
		return errnoName(no)
	case os.IsTimeout(err):
		return "timeout"
	}
	return err.Error()
}

func errnoName(no syscall.Errno) string {
	for name, e := range map[string]syscall.Errno{
		"EPERM": syscall.EPERM, "ENOENT": syscall.ENOENT, "EACCES": syscall.EACCES, "EROFS": syscall.EROFS, "ENOSYS": syscall.ENOSYS,
		"ENETUNREACH": syscall.ENETUNREACH, "ECONNREFUSED": syscall.ECONNREFUSED, "EADDRNOTAVAIL": syscall.EADDRNOTAVAIL,
		"EFAULT": syscall.EFAULT, "EINVAL": syscall.EINVAL, "EBADF": syscall.EBADF, "ENOTDIR": syscall.ENOTDIR, "EISDIR": syscall.EISDIR,
		"EAFNOSUPPORT": syscall.EAFNOSUPPORT, "EPROTONOSUPPORT": syscall.EPROTONOSUPPORT, "ENOSPC": syscall.ENOSPC, "EIO": syscall.EIO,
		"EMFILE": syscall.EMFILE, "ENXIO": syscall.ENXIO, "ENODEV": syscall.ENODEV, "EHOSTUNREACH": syscall.EHOSTUNREACH,
	} {
		if e == no {
			return name
		}
	}
	return fmt.Sprintf("errno %d", int(no))
}

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: probe HOSTPORT ABSTRACT ADDRESS...")
		os.Exit(2)
	}
	// Some attempts would change the thread that makes them, if they went through.
	runtime.LockOSThread()
	if os.Args[1] == x32 {
		x32Child()
	}
	t := table{}
	status(t)
	files(t)
	network(t, os.Args[1], os.Args[2], os.Args[3:])
	sockets(t)
	syscalls(t)
	x32Call(t)
	namespaces(t)
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", "  ")
	if err := out.Encode(t); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// status says what the kernel says of this process.
func status(t table) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t["status"] = outcome(err)
		return
	}
	for line := range strings.Lines(string(b)) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch k {
		case "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp":
			t["status "+k] = strings.TrimSpace(v)
		case "Uid", "Gid":
			if strings.Fields(v)[0] == "0" {
				t["status "+k] = "root"
			} else {
				t["status "+k] = "not root"
			}
		case "Groups":
			own := fmt.Sprint(os.Getgid())
			t["status other groups"] = strings.Join(strings.Fields(strings.Replace(v, own, "", 1)), " ")
		}
	}
	t["status process"] = fmt.Sprint(os.Getpid())
	for name, r := range map[string]int{"open files": syscall.RLIMIT_NOFILE, "core": syscall.RLIMIT_CORE} {
		var l syscall.Rlimit
		if err := syscall.Getrlimit(r, &l); err != nil {
			t["limit "+name] = outcome(err)
			continue
		}
		t["limit "+name] = fmt.Sprint(l.Max)
	}
}

// namespaces prints the identity of each; the test compares with the host's.
func namespaces(t table) {
	for _, ns := range []string{"cgroup", "ipc", "mnt", "net", "pid", "uts"} {
		link, err := os.Readlink("/proc/self/ns/" + ns)
		if err != nil {
			link = outcome(err)
		}
		t["namespace "+ns] = link
	}
}
