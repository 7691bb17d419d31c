package e2e

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"peercompute/pkg/mesh"
	"peercompute/pkg/wire"
	"peercompute/test/internal/testmesh"
)

// background is a peerctl that runs until it is told to end.
type background struct {
	cmd    *exec.Cmd
	out    *bufio.Reader
	errs   *strings.Builder
	ended  chan struct{}
	closed bool
}

// begin starts peerctl against n, and ends it with the test.
func begin(t *testing.T, n *testmesh.Node, stdin io.Reader, args ...string) *background {
	t.Helper()
	b := &background{errs: &strings.Builder{}, ended: make(chan struct{})}
	b.cmd = exec.Command(testmesh.Program(t, "peerctl"), append([]string{"--home", n.Home}, args...)...)
	b.cmd.Stdin, b.cmd.Stderr = stdin, b.errs
	out, err := b.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	b.out = bufio.NewReader(out)
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.end(t) })
	return b
}

// end interrupts it and returns its exit status; what it wrote must be read before.
func (b *background) end(t *testing.T) int {
	t.Helper()
	if b.closed {
		return b.cmd.ProcessState.ExitCode()
	}
	b.closed = true
	_ = b.cmd.Process.Signal(syscall.SIGINT) // it may have ended by itself
	_ = b.cmd.Wait()
	return b.cmd.ProcessState.ExitCode()
}

// wait waits for it to end by itself.
func (b *background) wait(t *testing.T, limit time.Duration) int {
	t.Helper()
	done := make(chan struct{})
	go func() { _, _ = io.Copy(io.Discard, b.out); _ = b.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(limit):
		_ = b.cmd.Process.Kill()
		<-done
		t.Fatalf("peerctl still runs after %s", limit)
	}
	b.closed = true
	return b.cmd.ProcessState.ExitCode()
}

// line is the next line that it prints.
func (b *background) line(t *testing.T) string {
	t.Helper()
	s, err := b.out.ReadString('\n')
	if err != nil {
		t.Fatalf("peerctl ended: %v: %s", err, b.errs)
	}
	return strings.TrimSpace(s)
}

// fetch asks for a URL over a connection of its own.
func fetch(t *testing.T, url string) string {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	_, body := get(t, c, url)
	return body
}

func TestPortForwardOfAContainer(t *testing.T) {
	t.Parallel()
	image := container(t)
	m := testmesh.New(t)
	alice, bob := m.Peer("alice"), m.Peer("bob")
	m.Lend(bob, alice)
	// It listens on a port that its spec does not name.
	deploy(t, alice, image, "--peer", "bob", "--name", "box", "--", "--listen", "127.0.0.1:5432", "--name", "box")
	refused(t, alice.Ctl("logs", "nothing"), "no workload")

	f := begin(t, alice, nil, "port-forward", "box", ":5432")
	addr := f.line(t)
	var body string
	within(t, time.Minute, "the program to listen", func() bool { // it has no port that says when it is ready
		c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}
		res, err := c.Get("http://" + addr + "/x")
		if err != nil {
			return false
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		body = string(b)
		return err == nil
	})
	if body != "hello from box: GET /x\n" {
		t.Errorf("got %q", body)
	}
	big := repeat("0123456789abcdef", 3<<20)
	res, err := http.Post("http://"+addr+"/upload", "application/octet-stream", strings.NewReader(string(big)))
	if err != nil {
		t.Fatal(err)
	}
	answer, _ := io.ReadAll(res.Body)
	res.Body.Close()
	if !strings.Contains(string(answer), "3145728") {
		t.Errorf("an upload of 3 MiB: %s %q", res.Status, answer)
	}

	// A connection that is open ends with the workload, and no new one is carried.
	conn := dial(t, addr)
	alice.Must("stop", "box")
	if err := broken(t, conn, 20*time.Second); err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("tcp", addr); err == nil {
		defer c.Close()
		if err := broken(t, c, 20*time.Second); err != nil {
			t.Errorf("after stop: %v", err)
		}
	}
	if code := f.end(t); code != 130 {
		t.Errorf("exit %d after Ctrl-C, want 130", code)
	}
	if !strings.Contains(f.errs.String(), "the workload is") {
		t.Errorf("it does not say why it carries nothing: %s", f.errs)
	}
}

// dial opens a connection and makes sure that it is carried.
func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.ReadFull(conn, make([]byte, 12)); err != nil {
		t.Fatalf("it is not carried: %v", err)
	}
	return conn
}

// broken requires that the connection ends within limit.
func broken(t *testing.T, conn net.Conn, limit time.Duration) error {
	t.Helper()
	_ = conn.SetDeadline(time.Now().Add(limit))
	_, err := io.Copy(io.Discard, conn)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return errors.New("the connection goes on")
	}
	return nil
}

func TestPortForwardOfAGuest(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice, bob := m.Peer("alice"), m.Peer("bob")
	m.Lend(bob, alice)
	deploy(t, alice, testmesh.Tiny(t, "hello there"), "--peer", "bob", "--name", "hello")
	for _, ports := range [][]string{{}, {":80"}} {
		f := begin(t, alice, nil, append([]string{"port-forward", "hello"}, ports...)...)
		if body := fetch(t, "http://"+f.line(t)+"/"); body != "hello there" {
			t.Errorf("%v: got %q", ports, body)
		}
		f.end(t)
	}
	// On the machine where it runs its owner of the machine reaches it as well.
	f := begin(t, bob, nil, "port-forward", "hello")
	if body := fetch(t, "http://"+f.line(t)+"/"); body != "hello there" {
		t.Errorf("locally: got %q", body)
	}
	f.end(t)
	f = begin(t, alice, nil, "port-forward", "hello", ":81")
	if c, err := net.Dial("tcp", f.line(t)); err == nil { // it may be reset before it is made
		defer c.Close()
		if err := broken(t, c, time.Minute); err != nil {
			t.Error(err)
		}
	}
	f.end(t)
	if !strings.Contains(f.errs.String(), "one port alone") {
		t.Errorf("another port of a guest: %s", f.errs)
	}
}

// A peer may open only so many streams into workloads at once.
func TestForwardedStreamsAreBounded(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	bob := m.Peer("bob")
	eve := newSender(t, bob)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var ok wire.Accepted
	digest := upload(t, ctx, eve.Actor, bob, testmesh.Tiny(t, "hello"))
	spec := mesh.Spec{Name: "hello", Runtime: mesh.Wasm, Digest: digest, Image: "hello.wasm"}.WithDefaults()
	if err := eve.Requests.Do(ctx, bob.ID(), wire.VerbDeploy, wire.Deploy{Spec: spec}, &ok); err != nil {
		t.Fatal(err)
	}
	within(t, time.Minute, "hello to run", func() bool { return find(t, bob, "hello").State == mesh.Running })
	const most = 128
	for i := range most {
		s, err := eve.Requests.Open(ctx, bob.ID(), wire.VerbForward, wire.Forward{Workload: ok.Workload}, nil)
		if err != nil {
			t.Fatalf("stream %d: %v", i, err)
		}
		defer s.Reset()
	}
	s, err := eve.Requests.Open(ctx, bob.ID(), wire.VerbForward, wire.Forward{Workload: ok.Workload}, nil)
	if err == nil {
		s.Reset()
	}
	if mesh.KindOf(err) != mesh.Overloaded {
		t.Errorf("stream %d: %v, want Overloaded", most+1, err)
	}
}
