package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of processor time in /proc: the kernel shows every process a
// hundredth of a second, whatever it uses itself.
const tick = time.Second / 100

// processorTime is what the processes of a group have used so far. It says what a
// request costs where a rate only says what else the machine was doing.
func processorTime(group int) (time.Duration, error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(files) == 0 {
		return 0, skipped("this system has no /proc")
	}
	var total time.Duration
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			continue // it has just ended
		}
		pgrp, used, err := parseStat(string(data))
		if err != nil {
			return 0, fmt.Errorf("%s: %w", f, err)
		}
		if pgrp == group {
			total += used
		}
	}
	return total, nil
}

// parseStat reads a process's group and its user and system time, proc(5).
func parseStat(s string) (group int, used time.Duration, err error) {
	// The program's name stands in parentheses and may hold anything.
	at := strings.LastIndexByte(s, ')')
	f := strings.Fields(s[at+1:])
	if at < 0 || len(f) < 13 {
		return 0, 0, fmt.Errorf("not the form of proc(5): %q", s)
	}
	if group, err = strconv.Atoi(f[2]); err != nil {
		return 0, 0, err
	}
	for _, v := range f[11:13] {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return 0, 0, err
		}
		used += time.Duration(n) * tick
	}
	return group, used, nil
}
