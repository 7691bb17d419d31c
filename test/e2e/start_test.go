package e2e

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"peercompute/pkg/mesh"
	"peercompute/test/internal/testmesh"
)

// start runs the node's program with a command line that is expected to fail.
func start(t *testing.T, n *testmesh.Node, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := n.Command(ctx, args...).CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("it runs instead of refusing:\n%s", out)
	}
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 1 {
		t.Fatalf("ended with %v, want status 1\n%s", err, out)
	}
	return string(out)
}

func says(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("it does not say %q:\n%s", p, text)
		}
	}
}

func TestOneProcessPerHome(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice := m.Peer("alice")
	says(t, start(t, alice, "run", "--home", alice.Home, "--listen", "/ip4/127.0.0.1/tcp/0"), "another process uses the home", "next:", "--home")
	alice.Must("whoami") // the first one goes on
}

// A key whose state file is gone has lost its trust list: only the owner may
// declare that loss accepted.
func TestLostState(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice := m.Peer("alice")
	id := alice.ID()
	alice.Must("peers", "add", testmesh.NewActor(t).Key.ID.String(), "--name", "friend")
	alice.Stop()
	state := filepath.Join(alice.Home, "state.db")
	if err := os.Rename(state, state+".old"); err != nil {
		t.Fatal(err)
	}
	says(t, start(t, alice, alice.RunArgs()...), "state.db is missing", "next:", "backup", "--new-state")
	if _, err := os.Stat(state); !os.IsNotExist(err) {
		t.Errorf("the refused start left a state file: %v", err)
	}
	alice.Start("--new-state")
	if alice.ID() != id {
		t.Errorf("the node's ID changed from %s to %s", id, alice.ID())
	}
	if peers := strings.TrimSpace(alice.Must("peers", "ls", "-o", "json")); peers != "[]" {
		t.Errorf("a new state knows peers: %s", peers)
	}
	alice.Stop()
	// A state file of another life comes back only on the owner's word.
	if err := os.Rename(state+".old", state); err != nil {
		t.Fatal(err)
	}
	says(t, start(t, alice, alice.RunArgs()...), "rolled back", "next:", "--old-state")
	alice.Start("--old-state")
	if peers := alice.Must("peers", "ls"); !strings.Contains(peers, "friend") {
		t.Errorf("the restored state has lost its peer:\n%s", peers)
	}
	alice.Stop()

	// The other half of the pair.
	key := filepath.Join(alice.Home, "node.key")
	if err := os.Rename(key, key+".old"); err != nil {
		t.Fatal(err)
	}
	says(t, start(t, alice, alice.RunArgs()...), "node.key is missing", "next:", "backup")
	if err := os.Rename(key+".old", key); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	says(t, start(t, alice, alice.RunArgs()...), "can be read by others", "chmod 600")
	if err := os.Chmod(key, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(state, 5000); err != nil {
		t.Fatal(err)
	}
	says(t, start(t, alice, alice.RunArgs()...), "state.db", "backup")
}

func TestConfigurationErrorsAreAllListed(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice := m.NewPeer("alice")
	if err := os.MkdirAll(alice.Home, 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(alice.Home, "peerd.toml")
	for _, c := range []struct {
		text string
		want []string
	}{
		{"listne = []\nlog_level = \"info\"\n[lend]\ncpu = 2\n", []string{"line 1", `"listne"`, "line 4", `"lend.cpu"`, "configs/peerd.toml"}},
		{
			"listen = [\"0.0.0.0:4001\"]\nlog_level = \"loud\"\n[lend]\nworkloads = -1\n[docker]\nhost = \"tcp://10.0.0.1\"\n",
			[]string{"0.0.0.0:4001", `"loud"`, "negative", "docker.host"},
		},
		{"listen = \n", []string{"line 1"}},
	} {
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		says(t, start(t, alice, "run", "--home", alice.Home), c.want...)
	}
	says(t, start(t, alice, "run", "--home", alice.Home, "--config", file+".missing"), "cannot read the configuration", "--config")
	if err := os.WriteFile(file, []byte("log_level = \"debug\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	alice.Start()
}

// A port that is taken is said at the start, with the way out.
func TestPortTaken(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice, gw := m.Peer("alice"), m.Gateway("gw")
	listen := strings.TrimSuffix(alice.Addr(), "/p2p/"+alice.ID().String())
	out := start(t, alice, "run", "--home", filepath.Join(t.TempDir(), "other"), "--listen", listen)
	says(t, out, "cannot listen", "--listen")
	out = start(t, gw, "run", "--home", filepath.Join(t.TempDir(), "gw2"), "--http", gw.Public, "--listen", "/ip4/127.0.0.1/tcp/0")
	says(t, out, "cannot serve the public", "--http")
}

// SIGTERM under load: what is in flight does not keep a node from ending, and the
// mesh checks at the end that nothing is left.
func TestStopUnderLoad(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice, bob, gw := m.Trio()
	w := deploy(t, alice, testmesh.Tiny(t, ""), "--peer", "bob", "--name", "busy", "--timeout", "1m", "--publish")
	web := m.Web(gw)
	done := make(chan struct{})
	go func() {
		defer close(done)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.URL, nil)
		if err != nil {
			return
		}
		if res, err := web.Do(req); err == nil {
			res.Body.Close()
		}
	}()
	within(t, 30*time.Second, "a worker", func() bool { return len(bob.Workers()) > 0 })
	bob.Stop()
	<-done
	if left := bob.Workers(); len(left) != 0 {
		t.Errorf("workers outlive peerd: %v", left)
	}
	bob.Start()
	within(t, 30*time.Second, "the guest to come back", func() bool { return find(t, bob, "busy").State == mesh.Running })
}
