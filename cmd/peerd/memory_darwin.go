package main

import "golang.org/x/sys/unix"

// memoryMiB is the machine's memory.
func memoryMiB() int64 {
	n, err := unix.SysctlUint64("hw.memsize")
	if err != nil {
		return 1024
	}
	return int64(n >> 20)
}
