package main

import (
	"io"
	"os"
	"os/exec"
	"syscall"
)

func files(t table) {
	for _, path := range []string{
		"/program", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf",
		"/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/vm/drop_caches",
		"/proc/sysrq-trigger", "/proc/self/uid_map", "/proc/irq/default_smp_affinity",
		"/sys/kernel/mm/transparent_hugepage/enabled", "/sys/power/state", "/sys/fs/cgroup/memory/memory.limit_in_bytes",
		"/dev/mem", "/dev/kmsg", "/dev/sda", "/dev/fuse", "/dev/kvm", "/dev/net/tun",
	} {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err == nil {
			_, err = f.Write([]byte("1"))
			f.Close()
		}
		t.deny("write "+path, err)
	}
	for _, dir := range []string{"/", "/etc", "/dev", "/proc", "/sys", "/dev/shm", "/tmp"} {
		f, err := os.CreateTemp(dir, "probe")
		if err == nil {
			f.Close()
		}
		t.deny("create in "+dir, err)
	}
	for _, path := range []string{
		"/proc/kcore", "/proc/keys", "/proc/kallsyms", "/proc/timer_list", "/proc/interrupts", "/proc/sched_debug", "/sys/firmware", "/proc/acpi", "/proc/scsi",
		"/sys/kernel/debug", "/sys/kernel/security", "/sys/devices/virtual/powercap", "/var/run/docker.sock",
	} {
		t.read(path)
	}
	t.try("run a program from /tmp", runFrom("/tmp"))
	t.try("run a program from /dev/shm", runFrom("/dev/shm"))
	t.try("fill /tmp", fill("/tmp/full"))
	t.try("device in /tmp", syscall.Mknod("/tmp/device", syscall.S_IFCHR|0o600, 1<<8|3))
	t.try("set-user-ID in /tmp", setuid("/tmp/setuid"))
	t.try("symlink out of /tmp", symlink())
}

// read says whether there is anything to see: a masked path shows nothing.
func (t table) read(path string) {
	if got := look(path); got == "empty" || got == "ENOENT" {
		t["read "+path] = "nothing"
	} else {
		t["read "+path] = got
	}
}

func look(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return outcome(err)
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.IsDir() {
		names, err := f.Readdirnames(1)
		if err == io.EOF || len(names) == 0 {
			return "empty"
		}
		return "entries"
	}
	b := make([]byte, 1)
	n, err := f.Read(b)
	if n == 0 && (err == nil || err == io.EOF) {
		return "empty"
	}
	if err != nil {
		return outcome(err)
	}
	return "content"
}

func runFrom(dir string) error {
	self, err := os.ReadFile("/program")
	if err != nil {
		return err
	}
	path := dir + "/program"
	defer os.Remove(path)
	if err := os.WriteFile(path, self, 0o700); err != nil {
		return err
	}
	return exec.Command(path).Run()
}

// fill writes until it may not, and at most 1 GiB.
func fill(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer os.Remove(path)
	defer f.Close()
	chunk := make([]byte, 1<<20)
	for range 1024 {
		if _, err := f.Write(chunk); err != nil {
			return err
		}
	}
	return nil
}

// setuid makes a file that would change its user; the mount ignores the bit.
func setuid(path string) error {
	if err := os.WriteFile(path, nil, 0o700); err != nil {
		return err
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return err
	}
	const noSuid, noDev, noExec = 2, 4, 8
	if st.Flags&noSuid == 0 || st.Flags&noDev == 0 || st.Flags&noExec == 0 {
		return nil
	}
	return syscall.EPERM
}

// symlink follows a link out of the scratch to what is read-only.
func symlink() error {
	if err := os.Symlink("/program", "/tmp/link"); err != nil {
		return err
	}
	f, err := os.OpenFile("/tmp/link", os.O_WRONLY, 0)
	if err == nil {
		f.Close()
	}
	return err
}
