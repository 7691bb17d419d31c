package testmesh

import (
	"net/http"
	"os"
	"strings"
	"testing"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

// The smallest mesh: one guest through a gateway, and a stop that leaves nothing.
func TestTrio(t *testing.T) {
	m := New(t)
	alice, bob, gw := m.Trio()
	url := strings.TrimSpace(alice.Must("deploy", Tiny(t, "hello\n"), "--peer", "bob", "--publish"))
	res, err := m.Web(gw).Get(url)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Errorf("got %s", res.Status)
	}
	if n := len(bob.Workers()); n != 1 {
		t.Errorf("bob has %d workers, want 1", n)
	}
	if bob.Running() {
		bob.Kill()
	}
	if bob.Running() {
		t.Error("killed, and runs")
	}
	bob.Start()
	bob.Stop()
	if left := bob.Workers(); len(left) != 0 {
		t.Errorf("bob left workers behind: %v", left)
	}
}
