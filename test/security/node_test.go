package security

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"peercompute/pkg/admission"
	"peercompute/pkg/audit"
	"peercompute/pkg/identity"
	"peercompute/pkg/mesh"
	"peercompute/pkg/peernet"
	"peercompute/pkg/request"
	"peercompute/pkg/store"
	"peercompute/pkg/trust"
	"peercompute/pkg/wire"
	"peercompute/test/internal/testmesh"
)

// nodeEnv makes this test's own program a node: the whole request path, network to
// disk, with a clock that its standard input moves (a line: nanoseconds off) and an
// effect that can be counted. It is killed like any process.
const nodeEnv = "PEERCOMPUTE_SECURITY_NODE"

var effects = []byte("effect/") // in Workloads: effect/ digest execution → nothing

func runNode(home string) error {
	key, err := identity.Load(home)
	if err != nil {
		return err
	}
	st, err := store.Open(filepath.Join(home, store.FileName))
	if err != nil {
		return err
	}
	var off atomic.Int64
	go func() {
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			if n, err := strconv.ParseInt(in.Text(), 10, 64); err == nil {
				off.Store(n)
				fmt.Println("moved")
			}
		}
	}()
	now := func() time.Time { return time.Now().Add(time.Duration(off.Load())) }
	if n, err := strconv.ParseInt(os.Getenv(nodeEnv+"_OFF"), 10, 64); err == nil {
		off.Store(n)
	}
	list, err := trust.Open(st, key.ID, now)
	if err != nil {
		return err
	}
	gate, err := admission.NewGate(admission.Config{Store: st, Trust: list, Self: key.ID, Now: now})
	if err != nil {
		return err
	}
	n, err := peernet.New(peernet.Config{Key: key.Private, Listen: []string{os.Getenv(nodeEnv + "_LISTEN")}, Gate: list})
	if err != nil {
		return err
	}
	deploy := func(_ context.Context, c *request.Call) (request.Reply, error) {
		var one [8]byte
		rand.Read(one[:])
		execution := hex.EncodeToString(one[:])
		return request.Reply{Body: wire.Accepted{Workload: mesh.WorkloadID(execution)}, Commit: func(tx *store.Tx) error {
			return tx.Put(store.Workloads, append(append(bytes.Clone(effects), c.Digest[:]...), execution...), nil)
		}}, nil
	}
	request.NewServer(request.Config{Key: key, Net: n, Gate: gate, Store: st, Now: now, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Audit: audit.New(audit.Config{Store: st, Now: now}), Handlers: map[wire.Verb]request.Handler{wire.VerbDeploy: deploy}})
	return n.Run(context.Background(), func() { fmt.Println("ready") })
}

// node is such a process, as the test holds it.
type node struct {
	t      *testing.T
	home   string
	key    *identity.Key
	listen string

	off time.Duration
	cmd *exec.Cmd
	in  io.Writer
	out *bufio.Scanner
	log lockedBuffer
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) count(s string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.buf.String(), s)
}

func newNode(t *testing.T, trusted ...mesh.PeerID) *node {
	t.Helper()
	n := &node{t: t, home: t.TempDir(), listen: "/ip4/127.0.0.1/tcp/" + testmesh.FreePort(t)}
	var err error
	if n.key, err = identity.Create(n.home); err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(filepath.Join(n.home, store.FileName))
	if err != nil {
		t.Fatal(err)
	}
	list, err := trust.Open(st, n.key.ID, time.Now)
	for i, p := range trusted {
		if err == nil {
			err = list.Put(t.Context(), trust.Grant{Peer: p, Name: fmt.Sprint("peer-", i), Allow: trust.Deploy, Quota: trust.Quota{Requests: 1 << 30}})
		}
	}
	if err := errors.Join(err, st.Close()); err != nil {
		t.Fatal(err)
	}
	n.start()
	t.Cleanup(n.kill)
	return n
}

func (n *node) start() {
	n.t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), nodeEnv+"="+n.home, nodeEnv+"_LISTEN="+n.listen, fmt.Sprintf("%s_OFF=%d", nodeEnv, n.off))
	c.Stderr = &n.log
	in, err := c.StdinPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		n.t.Fatal(err)
	}
	n.cmd, n.in, n.out = c, in, bufio.NewScanner(out)
	if !n.out.Scan() || n.out.Text() != "ready" {
		n.t.Errorf("the node does not start: %q", n.out.Text())
	}
}

// kill is kill -9.
func (n *node) kill() {
	_ = n.cmd.Process.Kill()
	_ = n.cmd.Wait()
}

// move sets the node's clock, and returns when it is so.
func (n *node) move(off time.Duration) {
	n.off = off
	fmt.Fprintln(n.in, int64(off))
	if !n.out.Scan() {
		n.t.Error("the node's clock did not move")
	}
}

// executed reads from the disk what was carried out, by digest. The node must be dead.
func (n *node) executed() map[wire.Digest][]string {
	n.t.Helper()
	st, err := store.Open(filepath.Join(n.home, store.FileName))
	if err != nil {
		n.t.Fatal(err)
	}
	out := map[wire.Digest][]string{}
	err = st.View(func(tx *store.Tx) error {
		return tx.Each(store.Workloads, effects, func(k, _ []byte) (bool, error) {
			if k, ok := bytes.CutPrefix(k, effects); ok {
				d := wire.Digest(k[:32])
				out[d] = append(out[d], string(k[32:]))
			}
			return true, nil
		})
	})
	if err := errors.Join(err, st.Close()); err != nil {
		n.t.Fatal(err)
	}
	return out
}

func (n *node) addr() string { return n.listen + "/p2p/" + n.key.ID.String() }
