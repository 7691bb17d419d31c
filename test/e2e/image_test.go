package e2e

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"peercompute/pkg/driver/docker/dockertest"
	"peercompute/pkg/mesh"
	"peercompute/pkg/testkit"
	"peercompute/test/internal/testmesh"
)

func noise(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// pushedLine is what `image push|ls|prune -o json` promises.
type pushedLine struct {
	Ref, ID, Name, Owner, Peer, State string
	Size, Sent                        int64
	Used                              int
}

// withEngine starts a peer whose engine is another than everybody else's.
func withEngine(t *testing.T, m *testmesh.Mesh, name, host string) *testmesh.Node {
	t.Helper()
	config := filepath.Join(t.TempDir(), "peerd.toml")
	if err := os.WriteFile(config, []byte("[docker]\nhost = \""+host+"\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return m.Peer(name, "--config", config)
}

// Alice's engine is another than bob's, so he lacks what she has.
func TestPushImages(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "go")
	host := dockertest.Engine(t)
	for name, test := range map[string]func(*testing.T, string){
		"missing layers": pushMissingLayers, "cut": pushThatIsCut, "receiver killed": pushToOneThatDies, "directory": deployDirectory,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, host)
		})
	}
}

// A peer is given an image that it lacks: the layers that it has not, and no more.
// Then it runs there, under no name that anybody chose.
func pushMissingLayers(t *testing.T, host string) {
	program, err := os.ReadFile(dockertest.Program(t, filepath.Join(testmesh.ModuleRoot(t), "examples", "hello-container")))
	if err != nil {
		t.Fatal(err)
	}
	var low [][]byte
	low = append(low, dockertest.Layer(t, map[string][]byte{"program": program}))
	for range 3 {
		low = append(low, dockertest.Layer(t, map[string][]byte{rand.Text(): noise(12 << 20)}))
	}
	top := dockertest.Layer(t, map[string][]byte{"top": noise(4 << 20)})
	base, _ := dockertest.Load(t, "/program", low...)
	ref, id := dockertest.LoadInto(t, dockertest.ClientOf(t, host), "/program", append(low, top)...)

	m := testmesh.New(t)
	alice, bob, gw := withEngine(t, m, "alice", host), m.Peer("bob"), m.Gateway("gw")
	m.Lend(bob, alice)
	m.Route(bob, gw)
	bob.Must("peers", "allow", "alice", "--images", "nginx,pushed")
	refused(t, alice.Ctl("image", "push", ref), "--peer")

	// What it may not run there it may not build upon: all layers go.
	got := parse[pushedLine](t, alice.Must("image", "push", ref, "--peer", "bob", "-o", "json"))
	if got.ID != id || got.Sent < 36<<20 || got.State != "ready" {
		t.Errorf("pushed %+v", got)
	}
	t.Cleanup(func() { dockertest.Drop(t, got.Ref) })
	if again := parse[pushedLine](t, alice.Must("image", "push", ref, "--peer", "bob", "-o", "json")); again.Sent != 0 || again.Ref != got.Ref {
		t.Errorf("pushed again: %+v", again)
	}
	if list := parse[[]pushedLine](t, alice.Must("image", "ls", "--peer", "bob", "-o", "json")); len(list) != 1 || list[0].ID != id || list[0].Name != ref {
		t.Errorf("alice sees %+v", list)
	}
	if gone := parse[[]pushedLine](t, alice.Must("image", "prune", "--peer", "bob", "-o", "json")); len(gone) != 1 {
		t.Errorf("pruned %+v", gone)
	}
	within(t, 30*time.Second, "prune", func() bool {
		return len(parse[[]pushedLine](t, bob.Must("image", "ls", "-o", "json"))) == 0
	})

	// And what it may run it need not send.
	bob.Must("peers", "allow", "alice", "--images", "pushed,"+strings.Split(base, ":")[0])
	got = parse[pushedLine](t, alice.Must("image", "push", ref, "--peer", "bob", "-o", "json"))
	t.Logf("of an image of %d bytes %d were sent", got.Size, got.Sent)
	if got.Size < 40<<20 || got.Sent < 4<<20 || got.Sent > int64(len(top))+64<<10 {
		t.Errorf("one layer of %d bytes was missing; pushed %+v", len(top), got)
	}

	// A deploy sends it by itself, since no registry has it.
	web := m.Web(gw)
	w := deploy(t, alice, ref, "--peer", "bob", "--name", "box", "--port", "8080", "--publish", "--", "--name", "box")
	if _, body := get(t, web, w.URL+"/"); body != "hello from box: GET /\n" {
		t.Errorf("got %q", body)
	}
	var seen struct{ Spec mesh.Spec }
	if err := json.Unmarshal([]byte(alice.Must("inspect", "box", "-o", "json")), &seen); err != nil || seen.Spec.Image != got.Ref || seen.Spec.Digest != id {
		t.Errorf("it runs from %q, pinned to %q: %v", seen.Spec.Image, seen.Spec.Digest, err)
	}
	if gone := parse[[]pushedLine](t, alice.Must("image", "prune", "--peer", "bob", "-o", "json")); len(gone) != 0 {
		t.Errorf("pruned while it is used: %+v", gone)
	}
	// Nobody else sees or runs it.
	carol := m.Peer("carol")
	m.Lend(bob, carol)
	if list := parse[[]pushedLine](t, carol.Must("image", "ls", "--peer", "bob", "-o", "json")); len(list) != 0 {
		t.Errorf("carol sees %+v", list)
	}
	refused(t, carol.Ctl("deploy", got.Ref, "--peer", "bob", "--name", "thief"), "bob refused", "[grant.images]", "not one that you pushed")
	refused(t, carol.Ctl("deploy", id, "--peer", "bob", "--name", "thief"), "not on this machine")

	// What could not run is refused before it is sent, and so is what is too much.
	refused(t, carol.Ctl("image", "push", dockertest.ForeignImage(t), "--peer", "bob"), "bob", "[host.platform]", "linux/s390x")
	bob.Must("peers", "allow", "carol", "--disk", "1M")
	refused(t, carol.Ctl("image", "push", base, "--peer", "bob"), "bob refused", "[grant.disk]", "--disk")

	bob.Must("peers", "allow", "alice", "--images", "nginx")
	refused(t, alice.Ctl("image", "push", ref, "--peer", "bob"), "bob refused", "[grant.images]", "--images nginx,pushed")
	alice.Must("rm", "-f", "box")
	bob.Must("image", "prune")
	within(t, 30*time.Second, "prune", func() bool {
		return len(parse[[]pushedLine](t, bob.Must("image", "ls", "-o", "json"))) == 0
	})
}

// A push that is cut goes on where it broke off.
func pushThatIsCut(t *testing.T, host string) {
	const size, cut = 24 << 20, 8 << 20
	layer := dockertest.Layer(t, map[string][]byte{"data": noise(size)})
	ref, id := dockertest.LoadInto(t, dockertest.ClientOf(t, host), "/data", layer)
	m := testmesh.New(t)
	alice, bob := withEngine(t, m, "alice", host), m.Peer("bob")
	// The one way between them leads through a wire that breaks once.
	wire := newBreakingWire(t, bob, cut, func() {})
	bob.Must("peers", "add", "/ip4/127.0.0.1/tcp/9/p2p/"+alice.ID().String(), "--name", "alice", "--allow", "deploy", "--max-workloads", "1", "--disk", "1G", "--requests", "600/min")
	alice.Must("peers", "add", wire.addr+"/p2p/"+bob.ID().String(), "--name", "bob")
	got := parse[pushedLine](t, alice.Must("image", "push", ref, "--peer", "bob", "-o", "json"))
	t.Cleanup(func() { dockertest.Drop(t, got.Ref) })
	t.Logf("a layer of %d bytes, cut after %d: %d were sent", size, cut, got.Sent)
	if !wire.broke.Load() {
		t.Error("it was not cut")
	}
	if got.ID != id || got.State != "ready" || got.Sent > size+cut {
		t.Errorf("pushed %+v", got)
	}
	if got.Sent > size+4<<20 {
		t.Errorf("%d bytes were sent for %d: it began anew", got.Sent, size)
	}
	alice.Must("image", "prune", "--peer", "bob")
	within(t, 30*time.Second, "prune", func() bool {
		return len(parse[[]pushedLine](t, bob.Must("image", "ls", "-o", "json"))) == 0
	})
}

// The receiving peerd is killed in the middle of an image. What it had taken is there when
// it comes back, the push goes on from there, and nothing is left of the half.
func pushToOneThatDies(t *testing.T, host string) {
	const size, cut = 32 << 20, 16 << 20
	layer := dockertest.Layer(t, map[string][]byte{"data": noise(size)})
	ref, id := dockertest.LoadInto(t, dockertest.ClientOf(t, host), "/data", layer)
	m := testmesh.New(t)
	alice, bob := withEngine(t, m, "alice", host), m.Peer("bob")
	half, dead := make(chan struct{}), make(chan struct{})
	wire := newBreakingWire(t, bob, cut, sync.OnceFunc(func() { close(half); <-dead })) // nothing more gets through while it lives
	bob.Must("peers", "add", "/ip4/127.0.0.1/tcp/9/p2p/"+alice.ID().String(), "--name", "alice", "--allow", "deploy", "--max-workloads", "1", "--disk", "1G", "--requests", "600/min")
	alice.Must("peers", "add", wire.addr+"/p2p/"+bob.ID().String(), "--name", "bob")
	pushed := make(chan testmesh.Result, 1)
	go func() { pushed <- alice.Ctl("image", "push", ref, "--peer", "bob", "-o", "json") }()
	select {
	case <-half:
	case r := <-pushed:
		t.Fatalf("it was pushed before it was half there: %+v", r)
	}
	spooled := func() (bytes int64) {
		files, err := filepath.Glob(filepath.Join(bob.Home, "images", "in", "*", "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if st, err := os.Stat(f); err == nil {
				bytes += st.Size()
			}
		}
		return bytes
	}
	within(t, time.Minute, "what came through is on disk", func() bool { return spooled() > cut-2<<20 })
	bob.Kill()
	close(dead)
	bob.Start()
	r := <-pushed
	if r.Code != 0 { // it had given up before bob was back
		t.Logf("the push ended with: %s", r.Stderr)
		r = alice.Ctl("image", "push", ref, "--peer", "bob", "-o", "json")
	}
	if r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	got := parse[pushedLine](t, r.Stdout)
	t.Cleanup(func() { dockertest.Drop(t, got.Ref) })
	t.Logf("a layer of %d bytes, killed after %d: %d were sent", size, cut, got.Sent)
	if got.ID != id || got.State != "ready" || got.Sent >= size+cut {
		t.Errorf("pushed %+v", got)
	}
	within(t, 30*time.Second, "the spool to be empty", func() bool { return spooled() == 0 })
	if list := parse[[]pushedLine](t, bob.Must("image", "ls", "-o", "json")); len(list) != 1 || list[0].State != "ready" {
		t.Errorf("bob has %+v", list)
	}
	alice.Must("image", "prune", "--peer", "bob")
	within(t, 30*time.Second, "prune", func() bool {
		return len(parse[[]pushedLine](t, bob.Must("image", "ls", "-o", "json"))) == 0
	})
}

// breakingWire passes TCP connections on, and cuts all of them once, after so many
// bytes.
type breakingWire struct {
	addr  string
	broke atomic.Bool
}

// newBreakingWire calls at before it cuts.
func newBreakingWire(t *testing.T, to *testmesh.Node, after int64, at func()) *breakingWire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	w := &breakingWire{addr: "/ip4/127.0.0.1/tcp/" + port}
	target := strings.Split(to.Addr(), "/") // /ip4/A/tcp/P/p2p/ID
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", net.JoinHostPort(target[2], target[4]))
			if err != nil {
				in.Close()
				continue
			}
			go func() { _, _ = io.Copy(in, out); in.Close(); out.Close() }()
			go func() {
				defer in.Close()
				defer out.Close()
				if !w.broke.Load() {
					if n, _ := io.CopyN(out, in, after); n == after {
						w.broke.Store(true)
						at()
					}
					return
				}
				_, _ = io.Copy(out, in)
			}()
		}
	}()
	return w
}

// A directory is built by the engine of whoever deploys it, and runs at the peer.
func deployDirectory(t *testing.T, host string) {
	const secret = "correct horse battery staple 1297"
	dir := t.TempDir()
	program, err := os.ReadFile(dockertest.Program(t, filepath.Join(testmesh.ModuleRoot(t), "examples", "hello-container")))
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"program": program, "Dockerfile": []byte("FROM scratch\nCOPY . /\nENTRYPOINT [\"/program\"]\n"),
		".dockerignore": []byte("secret\n"), "secret": []byte(secret), "note": []byte("hello"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m := testmesh.New(t)
	alice, bob, gw := withEngine(t, m, "alice", host), m.Peer("bob"), m.Gateway("gw")
	m.Lend(bob, alice)
	m.Route(bob, gw)
	w := deploy(t, alice, dir, "--peer", "bob", "--name", "built", "--port", "8080", "--publish", "--", "--name", "built")
	if res, body := get(t, m.Web(gw), w.URL+"/"); res.StatusCode != http.StatusOK || body != "hello from built: GET /\n" {
		t.Errorf("got %s %q", res.Status, body)
	}
	list := parse[[]pushedLine](t, bob.Must("image", "ls", "-o", "json"))
	if len(list) != 1 || list[0].Owner != "alice" || list[0].Used != 1 {
		t.Fatalf("bob has %+v", list)
	}
	t.Cleanup(func() { dockertest.Drop(t, list[0].Ref) })
	saved, err := dockertest.Client(t).ImageSave(t.Context(), []string{list[0].Ref})
	if err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(saved)
	saved.Close()
	if err != nil || bytes.Contains(all, []byte(secret)) || !bytes.Contains(all, []byte("hello")) {
		t.Errorf("what .dockerignore names is in the image: %v", err)
	}
	refused(t, alice.Ctl("deploy", t.TempDir(), "--peer", "bob"), "no Dockerfile")
	alice.Must("rm", "-f", "built")
	bob.Must("image", "prune")
	within(t, 30*time.Second, "prune", func() bool {
		return len(parse[[]pushedLine](t, bob.Must("image", "ls", "-o", "json"))) == 0
	})
}
