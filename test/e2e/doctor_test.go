package e2e

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"peercompute/test/internal/testmesh"
)

type check struct{ Name, State, Detail, Fix string }

func checks(t *testing.T, n *testmesh.Node) map[string]check {
	t.Helper()
	out := map[string]check{}
	for _, c := range parse[[]check](t, n.Ctl("doctor", "-o", "json").Stdout) {
		out[c.Name] = c
		if c.State != "ok" && c.Fix == "" {
			t.Errorf("%s is a %s, and nothing is said of how to mend it", c.Name, c.State)
		}
	}
	return out
}

// The doctor finds what is wrong with a node that runs and with one that does not.
func TestDoctor(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice, bob, gw := m.Trio()
	within(t, time.Minute, "all to be well", func() bool {
		c := checks(t, bob)
		return c["peers"].State == "ok" && c["gateway"].State == "ok" && c["trust"].State == "ok"
	})
	all := checks(t, bob)
	for _, name := range []string{"home", "disk", "open files", "state", "clock", "wasm", "lending"} {
		if c := all[name]; c.State == "" || c.State == "problem" {
			t.Errorf("%s: %+v", name, c)
		}
	}
	if c := all["addresses"]; c.State != "warning" || !strings.Contains(c.Detail, "loopback") {
		t.Errorf("it listens on loopback alone, and the doctor says %+v", c)
	}
	if c := checks(t, gw); c["home"].State != "ok" || c["wasm"].State != "" {
		t.Errorf("of a gateway it says %+v", c)
	}

	alice.Stop()
	gw.Stop()
	within(t, time.Minute, "both to be missed", func() bool {
		c := checks(t, bob)
		return strings.Contains(c["peers"].Detail, "alice") && c["gateway"].State == "problem"
	})
	bob.Must("pause")
	if c := checks(t, bob)["lending"]; c.State != "warning" || !strings.Contains(c.Fix, "resume") {
		t.Errorf("paused, and the doctor says %+v", c)
	}
	if err := os.Chmod(bob.Home, 0o755); err != nil {
		t.Fatal(err)
	}
	if r := bob.Ctl("doctor"); r.Code != 1 || !strings.Contains(r.Stdout, "chmod go=") {
		t.Errorf("a home that others can read: status %d\n%s", r.Code, r.Stdout)
	}
	if err := os.Chmod(bob.Home, 0o700); err != nil {
		t.Fatal(err)
	}

	says(t, start(t, bob, "doctor", "--home", bob.Home), "another process uses the home")
	bob.Stop()
	out, err := bob.Command(t.Context(), "doctor", "--home", bob.Home).CombinedOutput()
	if err != nil {
		t.Errorf("a node that could run: %v\n%s", err, out)
	}
	says(t, string(out), "state      ok", "wasm       ok", "trust      ok")
	if err := os.Rename(bob.Home+"/state.db", bob.Home+"/away"); err != nil {
		t.Fatal(err)
	}
	out, err = bob.Command(t.Context(), "doctor", "--home", bob.Home).CombinedOutput()
	if _, failed := err.(*exec.ExitError); !failed || !strings.Contains(string(out), "next:") {
		t.Errorf("the state is gone: %v\n%s", err, out)
	}
	if err := os.Rename(bob.Home+"/away", bob.Home+"/state.db"); err != nil {
		t.Fatal(err)
	}
	says(t, start(t, bob, "doctor", "--home", t.TempDir()), "there is no node in", "peerd run makes one")
}
