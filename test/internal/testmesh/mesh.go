package testmesh

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// Mesh is a set of nodes that lives as long as one test.
type Mesh struct {
	t     testing.TB
	dir   string
	nodes []*Node
}

// New prepares an empty mesh. When the test ends, every node that still runs is
// emptied of workloads, told to stop, and inspected for what it left behind.
func New(t testing.TB) *Mesh {
	t.Helper()
	root, err := shop.dir()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(root, "")
	if err != nil {
		t.Fatal(err)
	}
	m := &Mesh{t: t, dir: dir}
	t.Cleanup(m.end)
	return m
}

// Node prepares a node without starting it. program is peerd or peergate; args
// are further flags of its run command.
func (m *Mesh) node(name, program string, args ...string) *Node {
	m.t.Helper()
	n := &Node{Name: name, Home: filepath.Join(m.dir, name), m: m, exe: filepath.Join(m.dir, name+"-"+program), args: args}
	// A file of its own, so that whatever runs from it belongs to this node.
	if err := os.Link(Program(m.t, program), n.exe); err != nil {
		m.t.Fatal(err)
	}
	m.nodes = append(m.nodes, n)
	return n
}

// Peer starts a peerd that listens on TCP and QUIC. args are further flags.
func (m *Mesh) Peer(name string, args ...string) *Node {
	m.t.Helper()
	n := m.NewPeer(name, args...)
	n.Start()
	return n
}

// NewPeer prepares a peerd without starting it.
func (m *Mesh) NewPeer(name string, args ...string) *Node {
	m.t.Helper()
	port := FreePort(m.t)
	return m.node(name, "peerd", append([]string{
		"--listen", "/ip4/127.0.0.1/tcp/" + port,
		"--listen", "/ip4/127.0.0.1/udp/" + port + "/quic-v1",
	}, args...)...)
}

// Gateway starts a peergate for *.localhost without rate limits.
func (m *Mesh) Gateway(name string, args ...string) *Node {
	m.t.Helper()
	public := "127.0.0.1:" + FreePort(m.t)
	n := m.node(name, "peergate", append([]string{
		"--domain", "localhost", "--http", public,
		"--listen", "/ip4/127.0.0.1/tcp/" + FreePort(m.t),
		"--rate-ip", "0", "--rate-name", "0",
	}, args...)...)
	n.Public = public
	n.Start()
	return n
}

// Lend lets user deploy on lender, within generous limits unless flags of
// "peers add" say otherwise, and tells user where lender is.
func (m *Mesh) Lend(lender, user *Node, flags ...string) {
	m.t.Helper()
	if len(flags) == 0 {
		flags = []string{"--allow", "deploy,observe", "--cpus", "16", "--memory", "8G", "--disk", "8G", "--max-workloads", "50", "--requests", "100000/min"}
	}
	user.Must("peers", "add", lender.Addr(), "--name", lender.Name)
	lender.Must(append([]string{"peers", "add", user.Addr(), "--name", user.Name}, flags...)...)
}

// Route lets peer publish on gateway.
func (m *Mesh) Route(peer, gateway *Node) {
	m.t.Helper()
	gateway.Must("peers", "add", peer.Addr(), "--name", peer.Name, "--allow", "publish", "--max-names", "50", "--requests", "100000/min")
	peer.Must("peers", "add", gateway.Addr(), "--name", gateway.Name, "--allow", "route")
}

// Trio is the usual mesh: alice deploys on bob, who publishes through the gateway gw.
func (m *Mesh) Trio() (alice, bob, gw *Node) {
	m.t.Helper()
	alice, bob, gw = m.Peer("alice"), m.Peer("bob"), m.Gateway("gw")
	m.Lend(bob, alice)
	m.Route(bob, gw)
	return alice, bob, gw
}

// Web is an HTTP client for the public names of a gateway: whatever the host, it
// connects to the gateway. It follows no redirects.
func (m *Mesh) Web(gw *Node) *http.Client {
	tr := &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, gw.Public)
		},
		MaxIdleConnsPerHost: 64,
		DisableCompression:  true,
	}
	m.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{
		Transport: tr, Timeout: time.Minute,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// end stops and inspects the nodes, the last started first.
func (m *Mesh) end() {
	for i := len(m.nodes) - 1; i >= 0; i-- {
		m.nodes[i].empty()
	}
	for i := len(m.nodes) - 1; i >= 0; i-- {
		m.nodes[i].Stop()
	}
	for _, n := range m.nodes {
		n.inspect()
	}
	if m.t.Failed() {
		for _, n := range m.nodes {
			m.t.Logf("the log of %s ends:\n%s", n.Name, n.LogTail(80))
		}
	}
	if err := os.RemoveAll(m.dir); err != nil {
		m.t.Error(err)
	}
}

// FreePort finds a port that is free for TCP and UDP on loopback. It is drawn
// below the range from which the kernel takes ports for outgoing connections, so
// that a node that restarts finds it free again.
func FreePort(t testing.TB) string {
	t.Helper()
	const low, span = 12000, 20000
	var b [2]byte
	for range 200 {
		rand.Read(b[:])
		port := low + (int(b[0])<<8|int(b[1]))%span
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		tcp, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		udp, err := net.ListenPacket("udp", addr)
		if err == nil {
			err = udp.Close()
		}
		if errors.Join(err, tcp.Close()) == nil {
			return strconv.Itoa(port)
		}
	}
	t.Fatal("no free port")
	return ""
}
