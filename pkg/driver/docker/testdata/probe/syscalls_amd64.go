package main

import (
	"context"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func amd64Calls() []call {
	return []call{
		{"modify_ldt (amd64)", unix.SYS_MODIFY_LDT, [6]uintptr{0, 0, 0}},
		{"iopl (amd64)", unix.SYS_IOPL, [6]uintptr{0}},
		{"ioperm (amd64)", unix.SYS_IOPERM, [6]uintptr{0, 0, 0}},
		{"uselib (amd64)", unix.SYS_USELIB, [6]uintptr{0}},
		{"ustat (amd64)", unix.SYS_USTAT, [6]uintptr{0, 0}},
		{"sysfs (amd64)", unix.SYS_SYSFS, [6]uintptr{3}},
	}
}

// x32 makes a call by the x32 numbers, which one table of the kernel still serves.
// A filter ends the thread for that, so a child does it.
const x32 = "x32"

func x32Call(t table) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	const key = "x32 call (amd64)"
	if err := exec.CommandContext(ctx, os.Args[0], x32, "").Run(); ctx.Err() != nil {
		t[key] = "ends the thread"
	} else {
		t.try(key, err)
	}
}

func x32Child() {
	_, _, no := syscall.RawSyscall(0x40000000|unix.SYS_GETPID, 0, 0, 0)
	os.Exit(int(no))
}
