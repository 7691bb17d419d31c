package main

import "golang.org/x/sys/unix"

// memoryMiB is the machine's memory.
func memoryMiB() int64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 1024
	}
	return int64(info.Totalram) * int64(info.Unit) >> 20
}
