package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"peercompute/pkg/testkit"
	"peercompute/test/internal/testmesh"
)

// lan makes a network of two hosts that nothing else is on: two network namespaces
// and a pair of virtual interfaces between them.
func lan(t *testing.T) (one, two string) {
	t.Helper()
	testkit.Need(t, "root")
	testkit.Need(t, "ip")
	id := fmt.Sprintf("pc%d", os.Getpid()%100000)
	one, two = id+"a", id+"b"
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	for _, ns := range []string{one, two} {
		if out, err := exec.Command("ip", "netns", "add", ns).CombinedOutput(); err != nil {
			t.Skipf("needs network namespaces: %v: %s", err, out)
		}
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns).Run() })
	}
	ip("link", "add", id+"v", "netns", one, "type", "veth", "peer", "name", id+"w", "netns", two)
	for ns, at := range map[string][2]string{one: {id + "v", "198.18.7.1/24"}, two: {id + "w", "198.18.7.2/24"}} {
		ip("-n", ns, "addr", "add", at[1], "dev", at[0])
		ip("-n", ns, "link", "set", at[0], "up")
		ip("-n", ns, "link", "set", "lo", "up")
	}
	return one, two
}

// Neighbours that announce themselves are seen, with name and address, and not
// trusted; one that does not is not seen. From the address that was seen a stranger
// knocks and is approved, over the same network.
func TestDiscoverAndKnock(t *testing.T) {
	here, there := lan(t)
	m := testmesh.New(t)
	loud := m.NewPeer("loud", "--listen", "/ip4/198.18.7.1/tcp/14001", "--discover", "--name", "loud", "--knock", "1h")
	quiet := m.NewPeer("quiet", "--listen", "/ip4/198.18.7.2/tcp/14001")
	loud.In("ip", "netns", "exec", here)
	quiet.In("ip", "netns", "exec", there)
	loud.Start()
	quiet.Start()

	type neighbour struct {
		ID, Name string
		Addrs    []string
		Trusted  bool
	}
	look := func(n *testmesh.Node) []neighbour {
		return parse[[]neighbour](t, n.Must("peers", "discover", "--timeout", "3s", "-o", "json"))
	}
	var seen []neighbour
	within(t, time.Minute, "quiet to see loud", func() bool { seen = look(quiet); return len(seen) > 0 })
	if len(seen) != 1 || seen[0].ID != loud.ID().String() || seen[0].Name != "loud" || seen[0].Trusted || len(seen[0].Addrs) != 1 ||
		!strings.HasPrefix(seen[0].Addrs[0], "/ip4/198.18.7.1/tcp/14001/p2p/") {
		t.Fatalf("quiet sees %+v", seen)
	}
	if got := look(loud); len(got) != 0 {
		t.Errorf("loud sees %+v, which does not announce itself", got)
	}
	if got := strings.TrimSpace(quiet.Must("peers", "ls", "-o", "json")); got != "[]" {
		t.Errorf("looking around trusted %s", got)
	}

	knock := make(chan testmesh.Result, 1)
	go func() {
		knock <- quiet.Ctl("peers", "knock", seen[0].Addrs[0], "--name", "loud", "--as", "quiet", "-o", "json")
	}()
	type pending struct{ Fingerprint, Name string }
	var waiting struct{ Pending []pending }
	within(t, time.Minute, "the knock", func() bool {
		waiting = parse[struct{ Pending []pending }](t, loud.Must("peers", "pending", "-o", "json"))
		return len(waiting.Pending) == 1
	})
	loud.Must("peers", "approve", waiting.Pending[0].Fingerprint, "--allow", "deploy")
	r := <-knock
	if r.Code != 0 || !strings.Contains(r.Stdout, waiting.Pending[0].Fingerprint) || waiting.Pending[0].Name != "quiet" {
		t.Fatalf("the knock came to %+v; the owner saw %+v", r, waiting)
	}
	within(t, time.Minute, "quiet to see loud again", func() bool { seen = look(quiet); return len(seen) > 0 })
	if len(seen) != 1 || !seen[0].Trusted {
		t.Errorf("after that quiet sees %+v, want it trusted", seen)
	}
	deploy(t, quiet, testmesh.Tiny(t, "hello"), "--peer", "loud", "--name", "hello")
}
