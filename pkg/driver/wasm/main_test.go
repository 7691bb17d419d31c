package wasm

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
)

// workerArg makes the test binary a worker, as peerd's hidden command does.
const workerArg = "wasm-worker"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == workerArg {
		if err := WorkerMain(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) > 2 && os.Args[1] == peerdArg {
		peerd(os.Args[2], os.Args[3])
	}
	code := m.Run()
	guests.remove()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// guests are the programs that tests run, built once, and one directory for all
// drivers, so that each is compiled once.
var guests builds

type builds struct {
	mu  sync.Mutex
	dir string
	m   map[string]string // what was built → file
}

func (b *builds) remove() {
	if b.dir != "" {
		os.RemoveAll(b.dir)
	}
}

func (b *builds) home(t testing.TB) string {
	if b.dir == "" {
		dir, err := os.MkdirTemp("", "guests")
		if err != nil {
			t.Fatal(err)
		}
		b.dir, b.m = dir, map[string]string{}
	}
	return b.dir
}

// build builds a Go program for WASI and returns the module's path.
func (b *builds) build(t testing.TB, pkg string) string {
	t.Helper()
	return b.program(t, pkg, "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
}

func (b *builds) program(t testing.TB, pkg string, env ...string) string {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	dir := b.home(t)
	if p, ok := b.m[pkg]; ok {
		return p
	}
	out := filepath.Join(dir, fmt.Sprintf("program%d", len(b.m)))
	cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", out, pkg)
	cmd.Env = append(os.Environ(), env...)
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", pkg, err, msg)
	}
	b.m[pkg] = out
	return out
}

// shelf is a content-addressed store of modules.
type shelf struct {
	t  testing.TB
	mu sync.Mutex
	m  map[string]string
}

func (s *shelf) put(path string) string {
	s.t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	digest := "sha256:" + hex.EncodeToString(sum[:])
	s.mu.Lock()
	defer s.mu.Unlock()
	s.m[digest] = path
	return digest
}

// probe is the guest that does what tests ask.
func (s *shelf) probe() string { return s.put(guests.build(s.t, "./testdata/probe")) }

// bytes puts a module that is not a file yet.
func (s *shelf) bytes(b []byte) string {
	s.t.Helper()
	return s.put(s.file(b))
}

// file makes a file of a module.
func (s *shelf) file(b []byte) string {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), "module.wasm")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

func (s *shelf) path(digest string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p, ok := s.m[digest]; ok {
		return p, nil
	}
	return "", mesh.Errorf(mesh.NotFound, "no module %s", digest)
}

// rig is a driver under test.
type rig struct {
	*Driver
	t     testing.TB
	shelf *shelf
}

// newRig makes a driver whose workers are this test binary: for small guests.
func newRig(t testing.TB, l Limits) *rig {
	t.Helper()
	return rigOf(t, l, func() *exec.Cmd { return exec.Command(os.Args[0], workerArg) })
}

// newGoRig makes a driver for guests that are Go programs. Its workers are built
// without the race detector, under which such a guest takes a minute to compile.
func newGoRig(t testing.TB, l Limits) *rig {
	t.Helper()
	worker := guests.program(t, "./testdata/worker")
	return rigOf(t, l, func() *exec.Cmd { return exec.Command(worker) })
}

func rigOf(t testing.TB, l Limits, command func() *exec.Cmd) *rig {
	t.Helper()
	s := &shelf{t: t, m: map[string]string{}}
	guests.mu.Lock()
	dir := guests.home(t)
	guests.mu.Unlock()
	d, err := New(Config{
		Dir: filepath.Join(dir, "wasm"), Module: s.path, Limits: l,
		Command:     command,
		Log:         slog.New(slog.NewTextHandler(testWriter{t}, nil)),
		GroupParent: testGroup(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return &rig{Driver: d, t: t, shelf: s}
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", p)
	if bytes.Contains(p, []byte("DATA RACE")) { // on a worker's standard error
		w.t.Error("a worker has a data race")
	}
	return len(p), nil
}

// workload is a workload with an ID of its own.
func (r *rig) workload(digest string, shape mesh.Shape, change func(*mesh.Spec)) mesh.Workload {
	var request [32]byte
	rand.Read(request[:])
	w := mesh.Workload{
		ID: mesh.NewWorkloadID(request), Owner: "owner", Created: time.Now(),
		Spec: mesh.Spec{Name: "guest", Runtime: mesh.Wasm, Shape: shape, Digest: digest},
	}
	if change != nil {
		change(&w.Spec)
	}
	w.Spec = w.Spec.WithDefaults()
	return w
}

// Run shadows the driver's, for tests that care for the streams and the end alone.
func (r *rig) Run(ctx context.Context, w mesh.Workload, stdin io.Reader, stdout, stderr io.Writer) (mesh.Exit, error) {
	ran, err := r.Driver.Run(ctx, w, driver.Job{Stdin: stdin, Stdout: stdout, Stderr: stderr})
	return ran.Exit, err
}

func (r *rig) start(w mesh.Workload) *task {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	if _, err := r.Prepare(ctx, w, nil); err != nil {
		r.t.Fatal(err)
	}
	got, err := r.Start(ctx, w)
	if err != nil {
		r.t.Fatal(err)
	}
	return got.(*task)
}
