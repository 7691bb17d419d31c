package e2e

import (
	"io"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"peercompute/pkg/driver/docker/dockertest"
	"peercompute/pkg/mesh"
	"peercompute/pkg/testkit"
	"peercompute/test/internal/testmesh"
)

// pongs answers "pong" at an address of this machine that is not public.
func pongs(t *testing.T) (addr string) {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && n.IP.To4() != nil && !mesh.Public(netip.MustParseAddr(n.IP.String())) {
			addr = n.IP.String()
			break
		}
	}
	if addr == "" {
		t.Fatal("this machine has no address of its own to try")
	}
	l, err := net.Listen("tcp", net.JoinHostPort(addr, "0"))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "pong")
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

// What alice's containers on bob may connect to is what she asks for and he granted,
// at each connection; hers reach each other in a network of a name; all of it comes
// back after bob was killed, and nothing stays.
func TestEgress(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "docker")
	testkit.Need(t, "tun")
	image := dockertest.Image(t, filepath.Join(testmesh.ModuleRoot(t), "pkg", "driver", "docker", "testdata", "caller"))
	here := pongs(t)
	m := testmesh.New(t)
	alice, bob, gw := m.Trio()
	web := m.Web(gw)

	bob.Must("peers", "allow", "alice", "--egress", "none")
	refused(t, alice.Ctl("deploy", image, "--peer", "bob", "--name", "far", "--egress", "internet"), "bob refused", "egress internet is not in your grant", "--egress internet")
	bob.Must("peers", "allow", "alice", "--egress", "allow")
	refused(t, alice.Ctl("deploy", image, "--peer", "bob", "--name", "far", "--egress", "allow:"+here), "egress private is not in your grant")
	bob.Must("peers", "allow", "alice", "--egress", "allow,private")

	shop := deploy(t, alice, image, "--peer", "bob", "--name", "shop", "--port", "8080", "--publish", "--network", "shop", "--egress", "allow:"+here)
	store := deploy(t, alice, image, "--peer", "bob", "--name", "store", "--port", "8080", "--publish", "--network", "shop")
	ask := func(w work, to string) string {
		_, body := get(t, web, w.URL+"/tcp?"+url.Values{"to": {to}}.Encode())
		return body
	}
	if got := ask(shop, here); got != "pong" {
		t.Errorf("what is allowed: %s", got)
	}
	if got := ask(store, here); got == "pong" {
		t.Error("a workload in a network gets out by itself")
	}
	if got := ask(shop, "store:9000"); got != "pong" {
		t.Errorf("the neighbour: %s", got)
	}

	bob.Kill()
	bob.Start()
	within(t, 30*time.Second, "the names to be back", func() bool { return status(t, web, shop.URL+"/tcp") == 200 && status(t, web, store.URL+"/tcp") == 200 })
	within(t, 30*time.Second, "the way out to be back", func() bool { return ask(shop, here) == "pong" && ask(shop, "store:9000") == "pong" })

	bob.Must("peers", "allow", "alice", "--egress", "none")
	if got := ask(shop, here); got == "pong" {
		t.Error("what was granted once is still allowed")
	}
	alice.Must("rm", "-f", "shop", "store")
}
