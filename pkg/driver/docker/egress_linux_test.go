package docker_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"

	"peercompute/pkg/driver"
	"peercompute/pkg/driver/docker"
	"peercompute/pkg/driver/docker/dockertest"
	"peercompute/pkg/driver/docker/internal/netns"
	"peercompute/pkg/egress"
	"peercompute/pkg/mesh"
	"peercompute/pkg/testkit"
)

// outside is a network namespace that plays the world: it has addresses that are
// public, though nobody announces them, and one of a private network, and answers
// "pong" on a port of each. The host has routes to it while the test runs.
type outside struct {
	port           string
	public, second string // addresses
	lan            string
	reached        atomic.Int32 // connections and datagrams that came
}

// needNetwork names what workloads with a network need besides an engine.
func needNetwork(t testing.TB) {
	t.Helper()
	needEngine(t)
	testkit.Need(t, "tun")
}

func newOutside(t *testing.T) *outside {
	t.Helper()
	needNetwork(t)
	testkit.Need(t, "netns")
	o := &outside{public: "25.113.7.1", second: "25.113.7.2", lan: "10.113.7.1"}
	id := strings.ToLower(rand.Text()[:8])
	ns, here, there := "pc"+id, "pc"+id+"h", "pc"+id+"o"
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	ip("netns", "add", ns)
	t.Cleanup(func() { ip("netns", "del", ns) })
	ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", ns)
	t.Cleanup(func() { ip("link", "del", here) })
	ip("link", "set", here, "up")
	ip("-n", ns, "link", "set", "lo", "up")
	ip("-n", ns, "link", "set", there, "up")
	ip("-n", ns, "route", "add", "default", "dev", there)
	for _, addr := range []string{o.public, o.second, o.lan} {
		ip("-n", ns, "addr", "add", addr+"/32", "dev", there)
		ip("route", "add", addr+"/32", "dev", here)
	}
	var tcp net.Listener
	var udp net.PacketConn
	err := netns.Do("/var/run/netns/"+ns, func() (err error) {
		if tcp, err = net.Listen("tcp4", ":0"); err != nil {
			return err
		}
		_, o.port, _ = net.SplitHostPort(tcp.Addr().String())
		udp, err = net.ListenPacket("udp4", o.public+":"+o.port)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	o.serve(t, tcp, udp)
	return o
}

// serve answers "pong" until the test ends.
func (o *outside) serve(t *testing.T, tcp net.Listener, udp net.PacketConn) {
	done := make(chan struct{}, 2)
	go func() {
		defer func() { done <- struct{}{} }()
		for {
			c, err := tcp.Accept()
			if err != nil {
				return
			}
			o.reached.Add(1)
			io.WriteString(c, "pong")
			c.Close()
		}
	}()
	go func() {
		defer func() { done <- struct{}{} }()
		b := make([]byte, 100)
		for {
			_, from, err := udp.ReadFrom(b)
			if err != nil {
				return
			}
			o.reached.Add(1)
			udp.WriteTo([]byte("pong"), from)
		}
	}()
	t.Cleanup(func() { tcp.Close(); udp.Close(); <-done; <-done })
}

func (o *outside) at(addr string) string { return net.JoinHostPort(addr, o.port) }

// openTo is a driver whose workloads may connect to what their specs say.
func openTo(t testing.TB, node mesh.PeerID, change func(*docker.Config)) *docker.Driver {
	t.Helper()
	host, runtime := dockertest.Chosen()
	c := docker.Config{
		Node: node, Host: host, Runtime: runtime, Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
		MayConnect: func(mesh.PeerID, mesh.Spec) error { return nil },
	}
	if change != nil {
		change(&c)
	}
	d, err := docker.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// call asks the caller in a workload.
func call(t testing.TB, task driver.Task, what, key, value string) string {
	t.Helper()
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return task.Dial(ctx) }}
	defer tr.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://workload/"+what+"?"+url.Values{key: {value}}.Encode(), nil)
		if err != nil {
			t.Error(err)
			return ""
		}
		res, err := tr.RoundTrip(req)
		if err == nil {
			b, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil {
				t.Error(err)
			}
			return string(b)
		}
		if mesh.KindOf(err) != mesh.Unavailable || ctx.Err() != nil {
			t.Errorf("asking the workload: %v", err)
			return ""
		}
		select {
		case <-time.After(5 * time.Millisecond): // until it listens
		case <-ctx.Done():
		}
	}
}

func calls(name string, image string, change func(*mesh.Spec)) mesh.Workload {
	s := spec(image)
	s.Name = name
	if change != nil {
		change(&s)
	}
	w := workload(s)
	w.Owner = someOwner
	return w
}

// someOwner is an ID as a key has it.
const someOwner = mesh.PeerID("\x00\x24\x08\x01\x12\x20abcdefghijklmnopqrstuvwxyz012345")

// forbidden is everything that no workload may reach, whatever its egress: where this
// machine, its neighbours, and the sibling listen.
func (o *outside) forbidden(t *testing.T, sibling netip.AddrPort) (all []string, reached func() int32) {
	t.Helper()
	host, err := net.Listen("tcp", ":"+o.port) // all addresses of this machine, IPv6 too
	if err != nil {
		t.Fatal(err)
	}
	packets, err := net.ListenPacket("udp", ":"+o.port)
	if err != nil {
		t.Fatal(err)
	}
	here := &outside{}
	here.serve(t, host, packets)
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		p := netip.MustParsePrefix(a.String())
		if p.Addr().IsLoopback() {
			continue
		}
		all = append(all, o.at(p.Addr().String()))
		if p.Addr().Is6() {
			all = append(all, o.at(p.Addr().String()+"%peer0"))
		}
	}
	for _, a := range []string{o.lan, "169.254.169.254", "172.17.0.1", "192.0.2.1", "100.64.0.1", "198.18.0.1", "198.18.0.53", "224.0.0.1", "255.255.255.255", "fe80::1%peer0", "ff02::1%peer0", "2606:4700::1111", "::ffff:" + o.lan} {
		all = append(all, o.at(a))
	}
	return append(all, sibling.String()), here.reached.Load
}

// TestEgressMatrix tries, from real containers and over TCP and UDP, to reach what is
// forbidden, and what is allowed to some.
func TestEgressMatrix(t *testing.T) {
	o := newOutside(t)
	image := dockertest.Image(t, "testdata/caller")
	// Names mean what this says, also such that were moved to this machine and its LAN.
	names := map[string]string{"good.example": o.public, "other.example": o.second, "lan.example": o.lan, "self.example": "127.0.0.1", "meta.example": "169.254.169.254"}
	d := openTo(t, newNode(t), func(c *docker.Config) {
		c.Out = egress.Dialer{Resolve: func(_ context.Context, name string) ([]netip.Addr, error) {
			if a, ok := names[name]; ok {
				return []netip.Addr{netip.MustParseAddr(a)}, nil
			}
			return nil, &net.DNSError{IsNotFound: true, Name: name}
		}}
	})
	sibling := start(t, d, calls("sibling", image, func(s *mesh.Spec) { s.Egress = mesh.EgressInternet }))
	forbidden, hostReached := o.forbidden(t, docker.AddressOf(sibling))
	for _, tc := range []struct {
		name     string
		change   func(*mesh.Spec)
		tcp, udp []string          // where "pong" comes from
		lookups  map[string]string // what names mean inside; "" = nothing
	}{
		{"none", nil, nil, nil, map[string]string{"good.example": ""}},
		{
			"internet", func(s *mesh.Spec) { s.Egress = mesh.EgressInternet },
			[]string{o.at(o.public), o.at(o.second), o.at("good.example"), o.at("other.example")},
			[]string{o.at(o.public), o.at("good.example")},
			map[string]string{"good.example": o.public, "GOOD.example": o.public, "lan.example": "", "self.example": "", "meta.example": "", "none.example": "", "sibling": ""},
		},
		{
			"allow", func(s *mesh.Spec) {
				s.Egress = mesh.EgressAllow
				s.Hosts = []string{o.at("good.example"), o.at("lan.example"), o.at("self.example"), o.at("meta.example"), o.at(o.second), "other.example:1"}
			},
			[]string{o.at("good.example"), o.at(o.second)},
			nil,
			map[string]string{"good.example": "198.18.1.1", "none.example": "", "sibling": ""},
		},
		{"network only", func(s *mesh.Spec) { s.Network = "alone" }, nil, nil, map[string]string{"good.example": "", "sibling": ""}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			task := start(t, d, calls("caller", image, tc.change))
			before := hostReached()
			for _, network := range []string{"tcp", "udp"} {
				var all sync.WaitGroup
				for _, to := range forbidden {
					all.Go(func() {
						if got := call(t, task, network, "never", to); got == "pong" {
							t.Errorf("%s to %s: %s", network, to, got)
						}
					})
				}
				all.Wait()
				allowed := map[string][]string{"tcp": tc.tcp, "udp": tc.udp}[network]
				for _, to := range []string{
					o.at(o.public), o.at(o.second), o.at("good.example"), o.at("other.example"), o.at("lan.example"), o.at("self.example"), o.at("meta.example"),
					net.JoinHostPort("198.18.1.2", o.port), net.JoinHostPort("198.18.1.200", o.port), o.public + ":1",
				} {
					reached, key := o.reached.Load(), "never"
					if slices.Contains(allowed, to) {
						key = "to"
					}
					if got := call(t, task, network, key, to); (got == "pong") != slices.Contains(allowed, to) {
						t.Errorf("%s to %s: %s", network, to, got)
					}
					if !slices.Contains(allowed, to) && o.reached.Load() != reached {
						t.Errorf("%s to %s arrived", network, to)
					}
				}
			}
			for _, name := range slices.Sorted(maps.Keys(tc.lookups)) {
				if got := call(t, task, "lookup", "name", name); got != tc.lookups[name] && (tc.lookups[name] != "" || !strings.Contains(got, "lookup")) {
					t.Errorf("%s means %q, want %q", name, got, tc.lookups[name])
				}
			}
			st, err := task.Stats(t.Context())
			if used := len(tc.tcp) > 0; err != nil || used && (st.Received == 0 || st.Sent == 0) || tc.change == nil && st.Received+st.Sent != 0 {
				t.Errorf("its network counts %d bytes received, %d sent, %v", st.Received, st.Sent, err)
			}
			if after := hostReached(); after != before {
				t.Errorf("%d connections reached this machine", after-before)
			}
		})
	}
}

// The network is there before the program's first instruction, and a program that
// connects to nothing but that needs no port.
func TestNetworkIsThereFromTheStart(t *testing.T) {
	o := newOutside(t)
	d := openTo(t, newNode(t), nil)
	s := spec(dockertest.Image(t, "testdata/caller"), o.at(o.public))
	s.Egress = mesh.EgressInternet
	w := workload(s)
	w.Owner = someOwner
	task := start(t, d, w)
	call(t, task, "lookup", "name", "x")
	r, err := d.Logs(t.Context(), task.ID(), driver.LogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, err := io.ReadAll(io.LimitReader(driver.PlainLog(r), 1000)); err != nil || !strings.HasPrefix(string(b), "first: pong") {
		t.Errorf("got %q, %v", b, err)
	}
}

// A grant that is taken back ends what a workload can connect to, at once.
func TestEgressIsAskedEachTime(t *testing.T) {
	o := newOutside(t)
	var refuse atomic.Bool
	var asked atomic.Pointer[mesh.Spec]
	d := openTo(t, newNode(t), func(c *docker.Config) {
		c.MayConnect = func(_ mesh.PeerID, s mesh.Spec) error {
			asked.Store(&s)
			if refuse.Load() {
				return mesh.Errorf(mesh.Denied, "no more")
			}
			return nil
		}
	})
	task := start(t, d, calls("caller", dockertest.Image(t, "testdata/caller"), func(s *mesh.Spec) {
		s.Egress, s.Hosts = mesh.EgressAllow, []string{o.at(o.public)}
	}))
	if got := call(t, task, "tcp", "to", o.at(o.public)); got != "pong" {
		t.Fatal(got)
	}
	if s := asked.Load(); s == nil || s.Egress != mesh.EgressAllow || !slices.Equal(s.Hosts, []string{o.at(o.public)}) {
		t.Errorf("asked about %+v", s)
	}
	refuse.Store(true)
	if got := call(t, task, "tcp", "to", o.at(o.public)); got == "pong" {
		t.Error("it still connects")
	}
	none := openTo(t, newNode(t), func(c *docker.Config) { c.MayConnect = nil })
	task = start(t, none, calls("caller", dockertest.Image(t, "testdata/caller"), func(s *mesh.Spec) { s.Egress = mesh.EgressInternet }))
	if got := call(t, task, "tcp", "to", o.at(o.public)); got == "pong" {
		t.Error("it connects where nobody is asked")
	}
}

// containersOf lists the names of a node's containers.
func containersOf(t *testing.T, node mesh.PeerID) (names []string) {
	t.Helper()
	found, err := dockertest.Client(t).ContainerList(t.Context(), container.ListOptions{
		All: true, Filters: filters.NewArgs(filters.Arg("label", "peercompute.node="+node.String())),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range found {
		names = append(names, fmt.Sprint(c.Names, c.State))
	}
	return names
}

// Without peerd there is no way out; the next peerd opens it again; with the workload
// all of it goes.
func TestEgressAcrossRestarts(t *testing.T) {
	o := newOutside(t)
	node := newNode(t)
	before := ruleset(t)
	d := openTo(t, node, nil)
	w := calls("caller", dockertest.Image(t, "testdata/caller"), func(s *mesh.Spec) { s.Egress = mesh.EgressInternet })
	task := start(t, d, w)
	if got := call(t, task, "tcp", "to", o.at(o.public)); got != "pong" {
		t.Fatal(got)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if got := call(t, task, "tcp", "to", o.at(o.public)); !strings.Contains(got, "unreachable") {
		t.Errorf("without peerd: %s", got)
	}

	d = openTo(t, node, nil)
	for range 2 { // a second time finds it open
		tasks, err := d.Adopt(t.Context())
		if err != nil || len(tasks) != 1 || tasks[0].ID() != w.ID {
			t.Fatalf("adopted %v, %v", tasks, err)
		}
		task = tasks[0]
		if got := call(t, task, "tcp", "to", o.at(o.public)); got != "pong" {
			t.Errorf("adopted: %s", got)
		}
	}
	if got := call(t, task, "tcp", "to", o.at(o.lan)); got == "pong" {
		t.Error("adopted with more than it had")
	}
	if err := task.Stop(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := task.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := containersOf(t, node); len(left) != 1 || strings.Contains(left[0], "net-") {
		t.Errorf("after its end there is %v", left)
	}
	if err := d.Remove(t.Context(), w.ID); err != nil {
		t.Fatal(err)
	}
	if left := containersOf(t, node); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	if after := ruleset(t); after != before {
		t.Errorf("rules before:\n%s\nafter:\n%s", before, after)
	}
}

// A sandbox without its workload, and a workload without its sandbox, are what a crash
// may leave.
func TestHalfNetworksAreRemoved(t *testing.T) {
	needNetwork(t)
	node := newNode(t)
	cli := dockertest.Client(t)
	image := dockertest.Image(t, "testdata/caller")
	for _, gone := range []string{"peercompute-", "peercompute-net-"} {
		d := openTo(t, node, nil)
		w := calls("caller", image, func(s *mesh.Spec) { s.Egress = mesh.EgressInternet })
		start(t, d, w)
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if err := cli.ContainerRemove(t.Context(), gone+string(w.ID)+"-"+node.String()[len(node.String())-8:], container.RemoveOptions{Force: true}); err != nil {
			t.Fatal(err)
		}
		d = openTo(t, node, nil)
		if tasks, err := d.Adopt(t.Context()); err != nil || len(tasks) != 0 {
			t.Errorf("without %s: adopted %d, %v", gone, len(tasks), err)
		}
		if left := containersOf(t, node); len(left) != 0 {
			t.Errorf("without %s: left %v", gone, left)
		}
	}
}

// ruleset is this machine's packet filter, which no workload changes.
func ruleset(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, c := range [][]string{{"iptables-save"}, {"ip6tables-save"}} {
		out, err := exec.Command(c[0], c[1:]...).Output()
		if err != nil {
			t.Fatalf("%s: %v", c[0], err)
		}
		for line := range strings.Lines(string(out)) {
			if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, ":") {
				all.WriteString(line)
			}
		}
	}
	return all.String()
}

// Workloads of one owner in a network of one name reach each other; nobody else does.
func TestNetworks(t *testing.T) {
	needNetwork(t)
	node, alice, bob := newNode(t), newNode(t), newNode(t)
	image := dockertest.Image(t, "testdata/caller")
	former := newNode(t) // alice's, before she changed her key
	d := openTo(t, node, func(c *docker.Config) {
		c.Owner = func(p mesh.PeerID) mesh.PeerID {
			if p == former {
				return alice
			}
			return p
		}
	})
	in := func(owner mesh.PeerID, name, network string) driver.Task {
		w := calls(name, image, func(s *mesh.Spec) { s.Network = network })
		w.Owner = owner
		return start(t, d, w)
	}
	web, db := in(alice, "web", "shop"), in(former, "db", "shop")
	both := calls("both", image, func(s *mesh.Spec) {
		s.Network, s.Networks, s.Aliases = "shop", []string{"blog"}, []string{"the_door"}
	})
	both.Owner = alice
	door := start(t, d, both)
	other, theirs := in(alice, "other", "blog"), in(bob, "db2", "shop")
	if got := call(t, web, "tcp", "to", "db:9000"); got != "pong" {
		t.Errorf("by name: %s", got)
	}
	if got := call(t, db, "tcp", "to", docker.AddressOf(web).Addr().String()+":9000"); got != "pong" {
		t.Errorf("by address: %s", got)
	}
	if got := call(t, web, "tcp", "to", "db:9001"); got == "pong" {
		t.Error("what db keeps on its loopback is reached")
	}
	if got := call(t, web, "tcp", "to", "db:9999"); !strings.Contains(got, "refused") {
		t.Errorf("where nothing listens: %s", got)
	}
	// One in two networks reaches and is reached in both, also by its other name; it joins nothing.
	for _, from := range []driver.Task{web, other, door} {
		if got := call(t, from, "tcp", "to", "the_door:9000"); got != "pong" {
			t.Errorf("%s reaches the one in both networks: %s", from.ID(), got)
		}
	}
	for _, name := range []string{"web", "other"} {
		if got := call(t, door, "tcp", "to", name+":9000"); got != "pong" {
			t.Errorf("from both networks to %s: %s", name, got)
		}
	}
	for from, to := range map[driver.Task][]driver.Task{web: {other, theirs}, db: {other, theirs}, other: {web, db, theirs}, theirs: {web, db, other, door}, door: {theirs}} {
		for _, victim := range to {
			if got := call(t, from, "tcp", "to", docker.AddressOf(victim).Addr().String()+":9000"); got == "pong" {
				t.Errorf("%s reaches %s", from.ID(), victim.ID())
			}
		}
	}
	for _, name := range []string{"web", "db", "other", "the_door"} {
		if got := call(t, theirs, "lookup", "name", name); !strings.Contains(got, "lookup") {
			t.Errorf("another owner's workload learns of %s: %s", name, got)
		}
	}
	// Another of the same name takes over only when the first is gone.
	was := call(t, web, "lookup", "name", "db")
	next := in(alice, "db", "shop")
	for range 20 {
		if got := call(t, web, "lookup", "name", "db"); got != was {
			t.Fatalf("db means %s, meant %s", got, was)
		}
	}
	if err := d.Remove(t.Context(), db.ID()); err != nil {
		t.Fatal(err)
	}
	if got, want := call(t, web, "lookup", "name", "db"), docker.AddressOf(next).Addr().String(); got != want {
		t.Errorf("db means %s, want %s", got, want)
	}
	// It holds after a restart, when only labels tell who is whose.
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = openTo(t, node, nil)
	tasks, err := d.Adopt(t.Context())
	if err != nil || len(tasks) != 5 {
		t.Fatalf("adopted %d, %v", len(tasks), err)
	}
	byID := map[mesh.WorkloadID]driver.Task{}
	for _, task := range tasks {
		byID[task.ID()] = task
	}
	if got := call(t, byID[web.ID()], "tcp", "to", "db:9000"); got != "pong" {
		t.Errorf("after a restart: %s", got)
	}
	if got := call(t, byID[other.ID()], "tcp", "to", "the_door:9000"); got != "pong" {
		t.Errorf("the second network after a restart: %s", got)
	}
	for _, victim := range []driver.Task{other, theirs} {
		if got := call(t, byID[web.ID()], "tcp", "to", docker.AddressOf(byID[victim.ID()]).Addr().String()+":9000"); got == "pong" {
			t.Error("another's workload is reached after a restart")
		}
	}
}
