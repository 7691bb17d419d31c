package testmesh

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

// How long a node may take.
const (
	startLimit = time.Minute
	stopLimit  = 30 * time.Second
)

// Node is one peerd or peergate.
type Node struct {
	Name   string
	Home   string
	Public string // of a gateway: HOST:PORT of its public side
	// Wrap is put before the command line by Start. It must execute the rest itself,
	// so that the process it becomes is the node.
	Wrap []string

	m    *Mesh
	exe  string
	args []string
	in   []string // a command that runs the node in another surrounding; see In
	who  control.Whoami

	cmd  *exec.Cmd
	done chan struct{} // closed when the process is gone
	log  *os.File
}

// Command is the node's program with a command line of its own, for tests of how
// it starts. Its output is the caller's.
func (n *Node) Command(ctx context.Context, args ...string) *exec.Cmd {
	line := append(append(n.in[:len(n.in):len(n.in)], n.exe), args...)
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.Env = append(os.Environ(), control.HomeEnv+"=")
	return cmd
}

// In makes the node run under a command that then becomes it, such as ip netns exec.
func (n *Node) In(command ...string) { n.in = command }

// RunArgs is the command line that Start uses.
func (n *Node) RunArgs(more ...string) []string {
	return append(append([]string{"run", "--home", n.Home}, n.args...), more...)
}

// Start starts the node and waits until it answers. more are further flags.
func (n *Node) Start(more ...string) {
	n.m.t.Helper()
	if !n.TryStart(more...) {
		n.m.t.Fatalf("%s did not start: %v\n%s", n.Name, n.cmd.ProcessState, n.LogTail(20))
	}
}

// TryStart is Start for a node that may end before it answers; it reports whether
// it does answer. One that ended is still to be let go of, with Gone.
func (n *Node) TryStart(more ...string) bool {
	t := n.m.t
	t.Helper()
	if n.cmd != nil {
		t.Fatalf("%s runs already", n.Name)
	}
	log, err := os.OpenFile(n.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	cmd := n.Command(context.Background(), n.RunArgs(more...)...)
	if len(n.Wrap) > 0 {
		env := cmd.Env
		cmd = exec.Command(n.Wrap[0], append(append(slices.Clone(n.Wrap[1:]), n.exe), n.RunArgs(more...)...)...)
		cmd.Env = env
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	n.cmd, n.log, n.done = cmd, log, make(chan struct{})
	go func() {
		_ = cmd.Wait() // ProcessState says how it ended
		close(n.done)
	}()
	c := n.Client()
	defer c.Close()
	deadline := time.Now().Add(startLimit)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		who, err := c.Whoami(ctx)
		cancel()
		if err == nil {
			n.who = who
			return true
		}
		select {
		case <-n.done:
			return false
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not answer: %v", n.Name, err)
		}
	}
}

// Running reports whether the process was started and has not been stopped.
func (n *Node) Running() bool { return n.cmd != nil }

// PID is the process's ID.
func (n *Node) PID() int { return n.cmd.Process.Pid }

// ID is the node's peer ID, as it said when it was last started.
func (n *Node) ID() mesh.PeerID { return n.who.ID }

// Addr is the TCP address that the node can be dialled at, ending in /p2p/ID.
func (n *Node) Addr() string { return n.addr("/tcp/") }

// QUIC is its QUIC address.
func (n *Node) QUIC() string { return n.addr("/quic-v1/") }

func (n *Node) addr(kind string) string {
	n.m.t.Helper()
	for _, a := range n.who.Addrs {
		if strings.Contains(a, kind) {
			return a
		}
	}
	n.m.t.Fatalf("%s has no address with %s: %v", n.Name, kind, n.who.Addrs)
	return ""
}

// Addrs are all of them.
func (n *Node) Addrs() []string { return n.who.Addrs }

// Client talks to the node's local API; the caller closes it.
func (n *Node) Client() *control.Client { return control.NewClient(n.Home) }

// Kill ends the process as a crash would, without any warning.
func (n *Node) Kill() {
	n.m.t.Helper()
	if err := n.cmd.Process.Kill(); err != nil {
		n.m.t.Fatal(err)
	}
	<-n.done
	n.gone()
}

// Ended waits at most so long for the process to end by itself.
func (n *Node) Ended(limit time.Duration) bool {
	select {
	case <-n.done:
		return true
	case <-time.After(limit):
		return false
	}
}

// Gone takes note that the process ended by itself, as a test meant it to.
func (n *Node) Gone() { n.gone() }

func (n *Node) gone() {
	n.log.Close()
	n.cmd = nil
}

// Stop asks the process to end and requires that it does so soon, with status 0.
// It does nothing to a node that does not run.
func (n *Node) Stop() {
	t := n.m.t
	t.Helper()
	if n.cmd == nil {
		return
	}
	defer n.gone()
	_ = n.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself: that shows in its state
	select {
	case <-n.done:
	case <-time.After(stopLimit):
		t.Errorf("%s still runs %s after SIGTERM; its goroutines are in the log", n.Name, stopLimit)
		_ = n.cmd.Process.Signal(syscall.SIGQUIT)
		select {
		case <-n.done:
		case <-time.After(time.Second):
			_ = n.cmd.Process.Kill()
			<-n.done
		}
		return
	}
	if code := n.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("%s ended with %v, want status 0", n.Name, n.cmd.ProcessState)
	}
}

func (n *Node) logFile() string { return filepath.Join(n.m.dir, n.Name+".log") }

// Log is all that the node wrote to stdout and stderr, over all its lives.
func (n *Node) Log() string {
	data, err := os.ReadFile(n.logFile())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		n.m.t.Error(err)
	}
	return string(data)
}

// LogTail is the end of it.
func (n *Node) LogTail(lines int) string {
	all := strings.Split(strings.TrimRight(n.Log(), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// complaint finds what no healthy node ever prints.
var complaint = regexp.MustCompile(`(?m)^(panic: |fatal error: |WARNING: DATA RACE|goroutine \d+ \[).*$`)

// Result is what one run of peerctl came to.
type Result struct {
	Stdout, Stderr string
	Code           int
}

// Ctl runs peerctl against the node.
func (n *Node) Ctl(args ...string) Result { return n.CtlIn(nil, args...) }

// CtlIn runs peerctl with the given input.
func (n *Node) CtlIn(stdin []byte, args ...string) Result {
	t := n.m.t
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, Program(t, "peerctl"), append([]string{"--home", n.Home}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("cannot run peerctl %s: %v", strings.Join(args, " "), err)
	}
	return Result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// Must runs peerctl, requires that it succeeds, and returns its stdout.
func (n *Node) Must(args ...string) string {
	n.m.t.Helper()
	r := n.Ctl(args...)
	if r.Code != 0 {
		n.m.t.Fatalf("on %s: peerctl %s: status %d\n%s%s", n.Name, strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}
