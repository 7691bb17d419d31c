package lend

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"peercompute/pkg/mesh"
)

// tick is the kernel's unit of processor time in /proc: USER_HZ, 100 a second on
// every architecture that Go runs on.
const tick = time.Second / 100

// Look reads what the machine has done so far.
func Look(now time.Time) (Machine, error) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return Machine{}, unmeasured(err)
	}
	busy, err := parseStat(data)
	if err != nil {
		return Machine{}, unmeasured(err)
	}
	return Machine{Busy: busy, Input: lastInput(now)}, nil
}

func unmeasured(err error) error {
	return mesh.Errorf(mesh.Unsupported, "whether this machine is idle cannot be measured").Because(err)
}

// parseStat sums the busy columns of the first line of /proc/stat: user, nice,
// system, irq, softirq. Idle and waiting for disks are not busy, stolen time is
// another machine's, and guests' time is in user already.
func parseStat(data []byte) (time.Duration, error) {
	line, _, _ := bytes.Cut(data, []byte("\n"))
	fields := strings.Fields(string(line))
	if len(fields) < 8 || fields[0] != "cpu" {
		return 0, fmt.Errorf("/proc/stat begins with %q", clip(string(line)))
	}
	var ticks uint64
	for _, i := range []int{1, 2, 3, 6, 7} {
		n, err := strconv.ParseUint(fields[i], 10, 63)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * tick, nil
}

// lastInput is how long ago somebody typed at a terminal, like w(1) says it: the
// access time of a terminal is when it was last read from.
func lastInput(now time.Time) time.Duration {
	last := time.Duration(-1)
	for _, pattern := range []string{"/dev/pts/[0-9]*", "/dev/tty[0-9]*"} {
		names, _ := filepath.Glob(pattern) // the patterns are good
		for _, name := range names {
			var st unix.Stat_t
			if unix.Stat(name, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR {
				continue
			}
			ago := max(0, now.Sub(time.Unix(st.Atim.Unix())))
			if last < 0 || ago < last {
				last = ago
			}
		}
	}
	return last
}

// ProcessTime is the processor time that a process has used; 0 if it is gone.
func ProcessTime(pid int) time.Duration {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	return parseProcess(data)
}

// parseProcess reads utime and stime of /proc/PID/stat, behind the program's name,
// which may hold anything.
func parseProcess(data []byte) time.Duration {
	i := bytes.LastIndexByte(data, ')')
	if i < 0 {
		return 0
	}
	fields := strings.Fields(string(data[i+1:]))
	if len(fields) < 13 {
		return 0
	}
	user, err1 := strconv.ParseUint(fields[11], 10, 63)
	system, err2 := strconv.ParseUint(fields[12], 10, 63)
	if err1 != nil || err2 != nil {
		return 0
	}
	return time.Duration(user+system) * tick
}

// Memory is how much memory the machine has and how much of it could be taken
// without swapping, in bytes.
func Memory() (total, available int64, err error) {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, 0, err
	}
	return parseMeminfo(data)
}

func parseMeminfo(data []byte) (total, available int64, err error) {
	found := map[string]int64{}
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "MemTotal:" && fields[0] != "MemAvailable:" {
			continue
		}
		n, err := strconv.ParseInt(fields[1], 10, 53)
		if err != nil {
			return 0, 0, err
		}
		found[fields[0]] = n << 10
	}
	if len(found) != 2 {
		return 0, 0, fmt.Errorf("/proc/meminfo does not say MemTotal and MemAvailable")
	}
	return found["MemTotal:"], found["MemAvailable:"], nil
}
