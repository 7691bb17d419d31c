package wasm

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"peercompute/pkg/mesh"
	"peercompute/pkg/testkit"
)

// status is /proc/PID/status by field.
func status(t testing.TB, path string) map[string]string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m := map[string]string{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		k, v, _ := strings.Cut(lines.Text(), ":")
		m[k] = strings.TrimSpace(v)
	}
	return m
}

// highWater is the most memory that the process has had resident, in bytes.
func highWater(t testing.TB, pid int) int64 {
	t.Helper()
	kb, err := strconv.ParseInt(strings.TrimSuffix(status(t, fmt.Sprintf("/proc/%d/status", pid))["VmHWM"], " kB"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kb << 10
}

func TestWorkerIsConfined(t *testing.T) {
	t.Setenv("SECRET", "of peerd")
	r := newRig(t, Limits{})
	task := r.start(r.workload(r.shelf.bytes(sayModule(plain)), mesh.HTTP, nil))
	proc := fmt.Sprintf("/proc/%d", task.p.cmd.Process.Pid)
	threads, err := filepath.Glob(proc + "/task/*/status")
	if err != nil || len(threads) == 0 {
		t.Fatal("no threads", err)
	}
	for _, path := range threads {
		s := status(t, path)
		if s["NoNewPrivs"] != "1" || s["Seccomp"] != "2" {
			t.Errorf("%s: NoNewPrivs %s, Seccomp %s", path, s["NoNewPrivs"], s["Seccomp"])
		}
	}
	if prio, err := unix.Getpriority(unix.PRIO_PROCESS, task.p.cmd.Process.Pid); err != nil || 20-prio < 5 {
		t.Errorf("its niceness is %d, %v", 20-prio, err)
	}
	t.Run("as another user", func(t *testing.T) {
		testkit.Need(t, "root")
		s := status(t, proc+"/status")
		if s["CapEff"] != "0000000000000000" || s["CapPrm"] != "0000000000000000" || strings.HasPrefix(s["Uid"], "0\t") || s["Groups"] != "" {
			t.Errorf("Uid %q, Groups %q, CapEff %q, CapPrm %q", s["Uid"], s["Groups"], s["CapEff"], s["CapPrm"])
		}
		if root, err := os.Readlink(proc + "/root"); err != nil || !strings.Contains(root, "/owners/") {
			t.Errorf("its root directory is %q, %v", root, err)
		}
		if env, err := os.ReadFile(proc + "/environ"); err != nil || len(env) > 0 {
			t.Errorf("its environment is %q, %v", env, err)
		}
		if adj, err := os.ReadFile(proc + "/oom_score_adj"); err != nil || strings.TrimSpace(string(adj)) != "900" {
			t.Errorf("oom_score_adj is %q, %v", adj, err)
		}
		limits, err := os.ReadFile(proc + "/limits")
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"Max core file size 0 0", "Max open files 3072 3072"} {
			if !strings.Contains(strings.Join(strings.Fields(string(limits)), " "), want) {
				t.Errorf("no %q in\n%s", want, limits)
			}
		}
	})
	t.Run("in a memory group", func(t *testing.T) {
		if r.cfg.GroupParent == "" {
			t.Skip("needs a memory control group that can be written")
		}
		b, err := os.ReadFile(proc + "/cgroup")
		if err != nil || !strings.Contains(string(b), "/peercompute-worker-") {
			t.Errorf("it is in %s, %v", b, err)
		}
	})
}

// processorTime is what the process has used, in its own code.
func processorTime(t testing.TB, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(b), ") ")
	ticks, err := strconv.Atoi(strings.Fields(after)[11])
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

func TestShareOfAProcessor(t *testing.T) {
	r := newRig(t, Limits{})
	w := r.workload(r.shelf.bytes(spinModule("")), mesh.HTTP, func(s *mesh.Spec) {
		s.Timeout = 2 * time.Second
		s.Resources.Fuel = 1 << 60
		s.Resources.MilliCPU = 100
	})
	task := r.start(w)
	before, began := processorTime(t, task.p.cmd.Process.Pid), time.Now()
	res, _ := get(t, task.client(), "http://app/")
	if res.StatusCode != 504 {
		t.Errorf("got %d", res.StatusCode)
	}
	// A tenth of it and the burst of 100 ms, and as much again for the worker itself. That
	// it is no less is for the rest of the machine to say.
	took := time.Since(began)
	if used := processorTime(t, task.p.cmd.Process.Pid) - before; used > took/10+400*time.Millisecond || used == 0 {
		t.Errorf("a tenth of a processor used %s in %s", used, took)
	}
}
