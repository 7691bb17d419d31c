package lend

import (
	"os"
	"testing"
	"time"
)

func TestParseProc(t *testing.T) {
	busy, err := parseStat([]byte("cpu  100 10 50 9999 77 5 5 33 20 0\ncpu0 1 1 1 1\n"))
	if err != nil || busy != 1700*time.Millisecond {
		t.Errorf("busy %s, %v, want 1.7s", busy, err)
	}
	for _, bad := range []string{"", "cpu\n", "intr 1 2 3 4 5 6 7 8\n", "cpu a b c d e f g\n"} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
	if got := parseProcess([]byte("7 (a) b (c) S 1 1 1 0 -1 4194560 1 2 3 4 250 50 0 0 20 0 1 0")); got != 3*time.Second {
		t.Errorf("process time %s, want 3s", got)
	}
	total, available, err := parseMeminfo([]byte("MemTotal:  16 kB\nMemFree: 1 kB\nMemAvailable: 8 kB\n"))
	if err != nil || total != 16<<10 || available != 8<<10 {
		t.Errorf("memory %d, %d, %v", total, available, err)
	}
	if _, _, err := parseMeminfo([]byte("MemTotal: 16 kB\n")); err == nil {
		t.Error("half a meminfo was read")
	}
}

// On this machine: what we burn is seen, both in the whole and in our own process.
func TestLookSeesWork(t *testing.T) {
	before, err := Look(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	mine := ProcessTime(os.Getpid())
	for x, deadline := 0, time.Now().Add(300*time.Millisecond); time.Now().Before(deadline); x++ {
		_ = x * x
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		after, err := Look(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if after.Busy > before.Busy && ProcessTime(os.Getpid()) > mine {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no work was seen")
		}
	}
	if total, available, err := Memory(); err != nil || available <= 0 || available > total {
		t.Errorf("memory: %d of %d, %v", available, total, err)
	}
	if ProcessTime(1<<30) != 0 {
		t.Error("a process that is not there has used time")
	}
}
