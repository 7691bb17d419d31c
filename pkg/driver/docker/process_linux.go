package docker

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"peercompute/pkg/mesh"
)

// process is a process of a container that the engine started for us. It is held by
// a descriptor, so that its ID cannot come to mean another one.
type process struct {
	pid       int
	fd        int    // a pidfd
	container string // the engine's ID
	began     string // when, in the kernel's ticks
}

// findProcess takes hold of a process; nil if it has ended.
func findProcess(pid int, container string) (*process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil, nil
	}
	if err != nil {
		return nil, mesh.Errorf(mesh.Unsupported, "this kernel gives no hold on processes, so no program can be run in containers").
			WithHint("Linux 5.6 or newer can").Because(err)
	}
	p := &process{pid: pid, fd: fd, container: container}
	st, err := statOf(pid)
	if err != nil || !belongs(pid, container) { // it has ended, and the ID may be another's
		p.close()
		return nil, nil
	}
	p.began = st.began
	return p, nil
}

func (p *process) close() { unix.Close(p.fd) }

// confined says what rights a process has that a workload's never has.
func (p *process) confined() error {
	mine, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.pid), "status"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return nil // it has ended
	}
	if err != nil {
		return mesh.Errorf(mesh.Internal, "cannot look at the program's rights").Because(err)
	}
	if bad := excess(mine); bad != "" && p.alive() {
		return mesh.Errorf(mesh.Denied, "the container engine gave the program rights that a workload does not have (%s); it was killed", bad).
			WithRule("container.exec")
	}
	return nil
}

func (p *process) alive() bool { return unix.PidfdSendSignal(p.fd, 0, nil, 0) == nil }

// excess names what in a process's status is not as it must be; "" if nothing.
func excess(status []byte) string {
	got := map[string]string{}
	for line := range bytes.Lines(status) {
		key, value, _ := strings.Cut(strings.TrimSpace(string(line)), ":")
		got[key] = strings.Join(strings.Fields(value), " ")
	}
	if strings.HasPrefix(got["State"], "Z") || strings.HasPrefix(got["State"], "X") {
		return "" // it has ended
	}
	var bad []string
	for _, caps := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		if strings.Trim(got[caps], "0") != "" || got[caps] == "" {
			bad = append(bad, caps)
		}
	}
	for _, ids := range []string{"Uid", "Gid"} {
		f := strings.Fields(got[ids])
		if len(f) != 4 || f[0] == "0" || f[0] != f[1] || f[0] != f[2] || f[0] != f[3] {
			bad = append(bad, ids)
		}
	}
	if got["NoNewPrivs"] != "1" {
		bad = append(bad, "NoNewPrivs")
	}
	if got["Seccomp"] != "2" {
		bad = append(bad, "Seccomp")
	}
	return strings.Join(bad, ", ")
}

// stat is part of a process's line in /proc.
type stat struct {
	session int
	began   string
}

func statOf(pid int) (stat, error) {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return stat{}, err
	}
	// The name stands in parentheses and may hold anything, further ones too.
	_, rest, ok := bytes.Cut(b[max(0, bytes.LastIndexByte(b, ')')):], []byte(") "))
	f := strings.Fields(string(rest))
	if !ok || len(f) < 20 {
		return stat{}, fmt.Errorf("the line of process %d is malformed", pid)
	}
	session, err := strconv.Atoi(f[3])
	return stat{session: session, began: f[19]}, err
}

const (
	killRounds = 400
	killPause  = 5 * time.Millisecond
)

// killSession kills the process and all in its session, until none is left. What made
// a session of its own stays, within the container's bounds, and ends with it.
func (p *process) killSession(log *slog.Logger) {
	_ = unix.PidfdSendSignal(p.fd, unix.SIGKILL, nil, 0) // it may have ended
	for range killRounds {
		if p.killRest() == 0 {
			return
		}
		time.Sleep(killPause) // until they are gone; new ones cannot come from the dead
	}
	log.Warn("a program that was killed in a container has not ended", "container", p.container)
}

// killRest kills once whatever is in the session, and returns how many there were.
func (p *process) killRest() int {
	if st, err := statOf(p.pid); err == nil && st.began != p.began {
		return 0 // the ID is another's: so nothing of the session is left
	}
	all, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	killed := 0
	for _, entry := range all {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || !p.leads(pid) {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		if p.leads(pid) { // asked again, now that it cannot become another
			if unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil {
				killed++
			}
		}
		unix.Close(fd)
	}
	return killed
}

// leads reports whether a process is in p's session, and has not ended.
func (p *process) leads(pid int) bool {
	st, err := statOf(pid)
	if err != nil || st.session != p.pid || !belongs(pid, p.container) {
		return false
	}
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	return err == nil && !bytes.Contains(b, []byte("\nState:\tZ")) && !bytes.Contains(b, []byte("\nState:\tX"))
}
