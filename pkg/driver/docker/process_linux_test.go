package docker

import (
	"strings"
	"testing"
)

func TestExcess(t *testing.T) {
	const good = "Name:\tsh\nState:\tS (sleeping)\nUid:\t7 7 7 7\nGid:\t7 7 7 7\nCapInh:\t0000\nCapPrm:\t0000\nCapEff:\t0000\nCapBnd:\t0000\nCapAmb:\t0000\nNoNewPrivs:\t1\nSeccomp:\t2\n"
	if bad := excess([]byte(good)); bad != "" {
		t.Errorf("a confined one: %s", bad)
	}
	for from, to := range map[string]string{
		"Uid:\t7 7": "Uid:\t0 7", "Gid:\t7 7 7 7": "Gid:\t7 7 7 0", "CapEff:\t0000": "CapEff:\t0001", "CapBnd:\t0000": "CapBnd:\tffff",
		"CapAmb:\t0000\n": "", "NoNewPrivs:\t1": "NoNewPrivs:\t0", "Seccomp:\t2": "Seccomp:\t0", "Seccomp:\t2\n": "", "Uid:": "Vid:",
	} {
		if excess([]byte(strings.Replace(good, from, to, 1))) == "" {
			t.Errorf("%q in place of %q is not seen", to, from)
		}
	}
	if excess(nil) == "" {
		t.Error("nothing is known, and it passes")
	}
}

func TestProcessesOfOthersAreNotTouched(t *testing.T) {
	if p, err := findProcess(1, "no-such-container"); p != nil || err != nil {
		t.Errorf("a process of this machine in a container's name: %v, %v", p, err)
	}
}
