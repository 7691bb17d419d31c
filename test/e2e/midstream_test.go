package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"peercompute/pkg/frame"
	"peercompute/pkg/mesh"
	"peercompute/pkg/peernet"
	"peercompute/pkg/testkit"
	"peercompute/pkg/wire"
	"peercompute/test/internal/testmesh"
)

// A peer is removed while it uploads a module, follows a log, watches a deploy that
// is not through, has sent half of another deploy, and, as a gateway, carries
// traffic through a tunnel. All of it is reset within a second; not a byte that it
// sends after that is taken.
func TestRemovedInMidStream(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	bob := m.Peer("bob")
	eve := testmesh.NewActor(t, bob.Addr())
	bob.Must("peers", "add", eve.Key.ID.String(), "--name", "eve", "--allow", "deploy,route",
		"--cpus", "4", "--memory", "1G", "--disk", "1G", "--max-workloads", "10", "--requests", "100000/min")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()

	// What is there to follow, to reach through a tunnel, and to wait for.
	run := func(name, text string) mesh.WorkloadID {
		digest := upload(t, ctx, eve, bob, testmesh.Tiny(t, text))
		var ok wire.Accepted
		spec := mesh.Spec{Name: name, Runtime: mesh.Wasm, Digest: digest, Image: name + ".wasm", Publish: &mesh.Publication{Gateway: "eve"}}.WithDefaults()
		if err := eve.Requests.Do(ctx, bob.ID(), wire.VerbDeploy, wire.Deploy{Spec: spec}, &ok); err != nil {
			t.Fatalf("deploy %s: %v", name, err)
		}
		return ok.Workload
	}
	hello := run("hello", "hello")
	within(t, time.Minute, "hello to run", func() bool { return find(t, bob, "hello").State == mesh.Running })
	spin := run("spin", "") // it never answers, so its deploy is never through

	open := map[string]*peernet.Stream{}
	ask := func(name string, verb wire.Verb, body, out any) {
		s, err := eve.Requests.Open(ctx, bob.ID(), verb, body, out)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		open[name] = s
	}
	const size = 8 << 20
	module := append(tinyModule(t), make([]byte, size)...)
	sum := sha256.Sum256(module)
	digest := "sha256:" + hex.EncodeToString(sum[:])
	var reply wire.PutModuleReply
	ask("upload", wire.VerbPutModule, wire.PutModule{Digest: digest, Size: int64(len(module))}, &reply)
	if _, err := open["upload"].Write(module[:len(module)/2]); err != nil || reply.Have {
		t.Fatalf("half an upload: %v, %+v", err, reply)
	}
	ask("logs -f", wire.VerbLogs, wire.Logs{Workload: hello, Follow: true}, nil)
	ask("deploy", wire.VerbWatch, wire.Ref{Workload: spin}, nil)
	ask("stats", wire.VerbStats, wire.Stats{Every: int64(time.Second)}, nil)
	ask("port-forward", wire.VerbForward, wire.Forward{Workload: hello}, nil)

	h, err := eve.Hello(ctx, bob.ID())
	if err != nil {
		t.Fatal(err)
	}
	late := eve.Seal(t, eve.Request(t, bob.ID(), h.Incarnation, wire.VerbDeploy, wire.Deploy{Spec: mesh.Spec{
		Name: "late", Runtime: mesh.Wasm, Digest: upload(t, ctx, eve, bob, testmesh.Tiny(t, "late")), Image: "late.wasm",
	}.WithDefaults()}))
	half, err := eve.Net.Open(ctx, bob.ID(), wire.ProtocolRequest)
	if err != nil {
		t.Fatal(err)
	}
	open["half a request"] = half
	head := append(binary.BigEndian.AppendUint32(nil, uint32(len(late))), late[:len(late)/2]...)
	if _, err := half.Write(head); err != nil {
		t.Fatal(err)
	}
	tunnel, err := eve.Net.Open(ctx, bob.ID(), wire.TunnelProtocol)
	if err != nil {
		t.Fatal(err)
	}
	open["tunnel"] = tunnel
	first, err := wire.TunnelHeader{Workload: hello, Label: "hello-aaaaaaaaaa"}.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	get := []byte("GET / HTTP/1.1\r\nHost: hello\r\n\r\n")
	if _, err := tunnel.Write(append(first, get...)); err != nil {
		t.Fatal(err)
	}
	tunnel.SetReadDeadline(time.Now().Add(time.Minute))
	status := make([]byte, 1)
	if _, err := io.ReadFull(tunnel, status); err != nil || wire.TunnelAnswer(status[0]) != nil {
		t.Fatalf("the tunnel: %v, %v", err, wire.TunnelAnswer(status[0]))
	}

	// Each stream is read until it breaks, and written to all the while.
	ended := make(chan string, len(open))
	for name, s := range open {
		go func() {
			s.SetReadDeadline(time.Now().Add(time.Minute))
			_, _ = io.Copy(io.Discard, s)
			ended <- name
		}()
	}
	// The limit is the product's; what peerctl needs to start is not part of it.
	c := bob.Client()
	defer c.Close()
	stall, began := testkit.WatchStall(t), time.Now()
	if _, err := c.RemovePeer(ctx, "eve", false); err != nil {
		t.Fatal(err)
	}
	reported := time.Since(began)
	for range open {
		select {
		case name := <-ended:
			if took := time.Since(began) - stall.Lost(); took > time.Second {
				t.Errorf("%s went on for %s after the removal was asked for", name, took.Round(time.Millisecond))
			}
		case <-time.After(20 * time.Second):
			t.Fatal("a stream goes on")
		}
	}
	t.Logf("removal reported after %s; all %d streams ended after %s", reported.Round(time.Millisecond), len(open), time.Since(began).Round(time.Millisecond))

	// What comes late is not taken: neither the rest of the module, nor of the
	// deploy, nor a byte more through the tunnel.
	for name, rest := range map[string][]byte{"upload": module[len(module)/2:], "half a request": late[len(late)/2:], "tunnel": get} {
		s := open[name]
		s.SetWriteDeadline(time.Now().Add(30 * time.Second))
		if n, err := io.Copy(s, bytes.NewReader(rest)); err == nil {
			t.Errorf("%s: %d bytes more were taken", name, n)
		}
	}
	for _, w := range ps(t, bob) {
		if w.Name == "late" {
			t.Errorf("a deploy that was half sent is here: %+v", w)
		}
	}
	within(t, 20*time.Second, "its workloads to stop", func() bool {
		return find(t, bob, "hello").State == mesh.Stopped && find(t, bob, "spin").State == mesh.Stopped
	})
	left, err := filepath.Glob(filepath.Join(bob.Home, "modules", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range left {
		if filepath.Base(f) == digest[len("sha256:"):]+".wasm" {
			t.Errorf("half a module is stored as a whole one")
		}
	}
	within(t, 30*time.Second, "the half upload to be deleted", func() bool {
		temp, _ := filepath.Glob(filepath.Join(bob.Home, "modules", ".upload-*"))
		return len(temp) == 0
	})
}

// The same of a program that the peer runs inside its container: the stream ends, and
// the program does not outlive it.
func TestRemovedWhileItsProgramRuns(t *testing.T) {
	t.Parallel()
	image := actorImage(t)
	m := testmesh.New(t)
	bob := m.Peer("bob")
	eve := testmesh.NewActor(t, bob.Addr())
	bob.Must("peers", "add", eve.Key.ID.String(), "--name", "eve", "--allow", "deploy,exec",
		"--cpus", "4", "--memory", "1G", "--disk", "1G", "--max-workloads", "10")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var ok wire.Accepted
	spec := mesh.Spec{Name: "box", Runtime: mesh.Container, Image: image, Port: 8080, Args: []string{"serve"}}.WithDefaults()
	if err := eve.Requests.Do(ctx, bob.ID(), wire.VerbDeploy, wire.Deploy{Spec: spec}, &ok); err != nil {
		t.Fatal(err)
	}
	within(t, time.Minute, "box to run", func() bool { return find(t, bob, "box").State == mesh.Running })
	processes := func() string { return strings.TrimSpace(bob.Must("exec", "box", "--", "/program", "processes")) }
	before := processes()
	s, err := eve.Requests.Open(ctx, bob.ID(), wire.VerbExec, wire.Exec{Workload: ok.Workload, Argv: []string{"/program", "linger"}, Stdin: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Reset()
	s.SetReadDeadline(time.Now().Add(time.Minute))
	if typ, p, err := frame.Read(s); err != nil || typ != wire.FrameStdout || string(p) != "ready\n" {
		t.Fatalf("frame %d, %q, %v", typ, p, err)
	}
	if n := processes(); n == before {
		t.Fatalf("%s processes, with the program and without", n)
	}

	c := bob.Client()
	defer c.Close()
	stall, began := testkit.WatchStall(t), time.Now()
	if _, err := c.RemovePeer(ctx, "eve", true); err != nil { // its workloads stay
		t.Fatal(err)
	}
	for err == nil {
		_, _, err = frame.Read(s)
	}
	if took := time.Since(began) - stall.Lost(); took > time.Second {
		t.Errorf("the stream went on for %s after the removal was asked for", took.Round(time.Millisecond))
	}
	within(t, 30*time.Second, "the program to end", func() bool { return processes() == before })
	t.Logf("the stream and the program ended within %s", time.Since(began).Round(time.Millisecond))
}

// upload sends a whole module and returns its digest.
func upload(t *testing.T, ctx context.Context, a *testmesh.Actor, to *testmesh.Node, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	digest := "sha256:" + hex.EncodeToString(sum[:])
	var reply wire.PutModuleReply
	s, err := a.Requests.Open(ctx, to.ID(), wire.VerbPutModule, wire.PutModule{Digest: digest, Size: int64(len(data))}, &reply)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Reset()
	if reply.Have {
		return digest
	}
	if _, err := s.Write(data); err != nil {
		t.Fatal(err)
	}
	s.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := io.ReadFull(s, make([]byte, 5)); err != nil { // its word that all went well
		t.Fatal(err)
	}
	return digest
}

// tinyModule is the bytes of a small module.
func tinyModule(t *testing.T) []byte {
	t.Helper()
	data, err := os.ReadFile(testmesh.Tiny(t, "tiny"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}
