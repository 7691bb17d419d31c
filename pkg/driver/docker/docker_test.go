package docker_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"peercompute/pkg/driver"
	"peercompute/pkg/driver/docker"
	"peercompute/pkg/driver/docker/dockertest"
	"peercompute/pkg/driver/drivertest"
	"peercompute/pkg/mesh"
	"peercompute/pkg/testkit"
)

// copierArg makes the test binary the process that copies, as peerd's hidden command does.
const copierArg = "container-copy"

// confinedArg makes it one that has given up what the process that copies gives up, and
// tries what it may no longer do.
const confinedArg = "confined"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == copierArg {
		if err := docker.CopyMain(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) > 1 && os.Args[1] == confinedArg {
		tryConfined()
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func copier(ctx context.Context) *exec.Cmd {
	return exec.CommandContext(ctx, os.Args[0], copierArg)
}

const port = 8080

// newNode is a peer ID that nobody else has, so that tests share an engine.
func newNode(t testing.TB) mesh.PeerID {
	t.Helper()
	key := make([]byte, 32)
	rand.Read(key)
	// The bytes before are those of every Ed25519 key's ID.
	return mesh.PeerID("\x00\x24\x08\x01\x12\x20" + string(key))
}

func needEngine(t testing.TB) {
	t.Helper()
	testkit.Need(t, "docker")
	testkit.Need(t, "root")
	testkit.Need(t, "go")
}

// manifests are those of pushed images, by their names.
var manifests sync.Map

func manifestOf(ref string) string {
	digest, _ := manifests.Load(ref)
	text, _ := digest.(string)
	return text
}

func open(t testing.TB, node mesh.PeerID) *docker.Driver {
	t.Helper()
	host, runtime := dockertest.Chosen()
	d, err := docker.New(docker.Config{Node: node, Host: host, Runtime: runtime, Copier: copier, Manifest: manifestOf, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func spec(image string, args ...string) mesh.Spec {
	return mesh.Spec{Name: "test", Runtime: mesh.Container, Image: image, Args: args, Port: port}
}

func workload(s mesh.Spec) mesh.Workload {
	var request [32]byte
	rand.Read(request[:])
	return mesh.Workload{ID: mesh.NewWorkloadID(request), Spec: s.WithDefaults(), Created: time.Now()}
}

// start prepares and starts a workload that goes with the test.
func start(t testing.TB, d *docker.Driver, w mesh.Workload) driver.Task {
	t.Helper()
	ctx := t.Context()
	if _, err := d.Prepare(ctx, w, nil); err != nil {
		t.Fatalf("prepare: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := d.Remove(ctx, w.ID); err != nil {
			t.Errorf("remove: %v", err)
		}
	})
	task, err := d.Start(ctx, w)
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	return task
}

// output runs a workload to its end and returns its log and how it ended.
func output(t testing.TB, d *docker.Driver, w mesh.Workload) (string, mesh.Exit) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	exit, err := start(t, d, w).Wait(ctx)
	if err != nil {
		t.Fatalf("wait: %v", err)
	}
	r, err := d.Logs(ctx, w.ID, driver.LogOptions{})
	if err != nil {
		t.Fatalf("logs: %v", err)
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(driver.PlainLog(r), 1<<20))
	if err != nil {
		t.Fatalf("reading the log: %v", err)
	}
	return string(b), exit
}

func TestContract(t *testing.T) {
	needEngine(t)
	image := dockertest.Image(t, "testdata/actor")
	node := newNode(t)
	drivertest.Run(t, drivertest.Harness{
		New:   func(t testing.TB) driver.Driver { return open(t, node) },
		Serve: func() mesh.Spec { return spec(image, "serve") },
		Print: func(lines, code int) mesh.Spec {
			return spec(image, "print", itoa(lines), itoa(code))
		},
		Stubborn: func() mesh.Spec { return spec(image, "stubborn") },
		Outlives: true,
		Owner:    node,
	})
}

func TestPingSaysWhichEngine(t *testing.T) {
	needEngine(t)
	detail, err := open(t, newNode(t)).Ping(t.Context())
	if err != nil || !strings.HasPrefix(detail, "Docker ") || !strings.Contains(detail, "remap") {
		t.Errorf("got %q, %v", detail, err)
	}
}

func TestRuntimeThatIsNotThere(t *testing.T) {
	needEngine(t)
	d, err := docker.New(docker.Config{Node: newNode(t), Runtime: "none-such"})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	w := workload(spec(dockertest.Image(t, "testdata/actor"), "serve"))
	_, ping := d.Ping(t.Context())
	_, started := d.Start(t.Context(), w)
	for what, err := range map[string]error{"ping": ping, "start": started} {
		if err == nil || mesh.KindOf(err) != mesh.Unsupported || !strings.Contains(err.Error(), "runc") {
			t.Errorf("%s: got %v", what, err)
		}
	}
}

func TestNoEngine(t *testing.T) {
	d, err := docker.New(docker.Config{Node: newNode(t), Host: "unix://" + t.TempDir() + "/none.sock"})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	ctx := t.Context()
	w := workload(spec("nginx"))
	_, ping := d.Ping(ctx)
	_, prepare := d.Prepare(ctx, w, nil)
	_, adopt := d.Adopt(ctx)
	_, logs := d.Logs(ctx, w.ID, driver.LogOptions{})
	for what, err := range map[string]error{"ping": ping, "prepare": prepare, "adopt": adopt, "logs": logs, "remove": d.Remove(ctx, w.ID)} {
		if err == nil || mesh.KindOf(err) != mesh.Unavailable || mesh.AsError(err).Hint == "" {
			t.Errorf("%s: got %v, want mesh.Unavailable with a hint", what, err)
		}
	}
}

func TestMissingImageAndNoRegistry(t *testing.T) {
	needEngine(t)
	d := open(t, newNode(t))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	// Port 1 of this machine: no registry, and no traffic to anybody else's.
	_, err := d.Prepare(ctx, workload(spec("127.0.0.1:1/peercompute/none:1")), nil)
	if err == nil || mesh.KindOf(err) != mesh.NotFound {
		t.Fatalf("got %v, want mesh.NotFound", err)
	}
	if e := mesh.AsError(err); strings.Contains(e.Msg, "\n") || e.Hint == "" {
		t.Errorf("not one clear line with a hint: %q, hint %q", e.Msg, e.Hint)
	}
	_, err = d.Prepare(ctx, workload(spec("sha256:"+strings.Repeat("0", 64))), nil)
	if err == nil || mesh.KindOf(err) != mesh.NotFound {
		t.Errorf("an ID that is not here: got %v, want mesh.NotFound", err)
	}
}

func TestImageByID(t *testing.T) {
	needEngine(t)
	d := open(t, newNode(t))
	id, err := d.Prepare(t.Context(), workload(spec(dockertest.Image(t, "testdata/actor"))), nil)
	if err != nil {
		t.Fatal(err)
	}
	if log, exit := output(t, d, workload(spec(id, "print", "1", "0"))); log != "line 1\n" || exit.Code != 0 {
		t.Errorf("got %q, %+v", log, exit)
	}
}

func TestForeignArchitectureIsRefused(t *testing.T) {
	needEngine(t)
	ref := dockertest.ForeignImage(t)
	_, err := open(t, newNode(t)).Prepare(t.Context(), workload(spec(ref)), nil)
	if err == nil || mesh.KindOf(err) != mesh.Unsupported || !strings.Contains(err.Error(), "s390x") {
		t.Errorf("got %v, want mesh.Unsupported naming s390x", err)
	}
}

func TestLogHasBothStreams(t *testing.T) {
	needEngine(t)
	log, _ := output(t, open(t, newNode(t)), workload(spec(dockertest.Image(t, "testdata/actor"), "both")))
	lines := strings.Fields(strings.ReplaceAll(log, " ", ""))
	slices.Sort(lines) // the engine reads two pipes, so only each stream's order is sure
	if want := []string{"err0", "err1", "err2", "out0", "out1", "out2"}; !slices.Equal(lines, want) {
		t.Errorf("got %q", log)
	}
}

func TestOutOfMemory(t *testing.T) {
	needEngine(t)
	s := spec(dockertest.Image(t, "testdata/actor"), "eat")
	s.Resources.Memory = 32 << 20
	_, exit := output(t, open(t, newNode(t)), workload(s))
	if exit.Kind != mesh.OutOfMemory || exit.Reason != "killed: memory 32 MiB" {
		t.Errorf("got %+v", exit)
	}
}

func TestProgramThatIsNotThere(t *testing.T) {
	needEngine(t)
	d := open(t, newNode(t))
	w := workload(spec(dockertest.Image(t, "testdata/actor", `ENTRYPOINT ["/nowhere"]`)))
	if _, err := d.Prepare(t.Context(), w, nil); err != nil {
		t.Fatal(err)
	}
	_, err := d.Start(t.Context(), w)
	if err == nil || mesh.KindOf(err) != mesh.Invalid || !strings.Contains(mesh.AsError(err).Msg, "/nowhere") {
		t.Errorf("got %v, want mesh.Invalid naming the program", err)
	}
	if tasks, err := d.Adopt(t.Context()); err != nil || len(tasks) != 0 {
		t.Errorf("the failed start left %d containers, %v", len(tasks), err)
	}
}

// What a program sees of itself and of the host.
func TestSurroundings(t *testing.T) {
	needEngine(t)
	w := workload(spec(dockertest.Image(t, "testdata/actor", "VOLUME /data"), "env"))
	log, _ := output(t, open(t, newNode(t)), w)
	var uid, gid int64
	var host, home, dir string
	if _, err := fmtSscanf(log, &uid, &gid, &host, &home, &dir); err != nil {
		t.Fatalf("%v in %q", err, log)
	}
	if uid < 1000 || gid != uid || host != w.Spec.Name {
		t.Errorf("got %q", log)
	}
	for line := range strings.Lines(log[strings.Index(log, "\n")+1:]) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "nameserver" && f[1] != "127.0.0.1" {
			t.Errorf("the host's resolver shows: %q", line)
		}
	}
}

func TestListenersOfAllKinds(t *testing.T) {
	needEngine(t)
	d := open(t, newNode(t))
	image := dockertest.Image(t, "testdata/actor")
	for _, addr := range []string{":8080", "127.0.0.1:8080", "localhost:8080", "test:8080"} {
		task := start(t, d, workload(spec(image, "serve", addr)))
		if err := answer(t, task); err != nil {
			t.Errorf("listening on %s: %v", addr, err)
		}
	}
	low := spec(image, "serve", ":80")
	low.Port = 80
	if err := answer(t, start(t, d, workload(low))); err != nil {
		t.Errorf("listening on :80: %v", err)
	}
}

// answer dials until something listens.
func answer(t testing.TB, task driver.Task) error {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := task.Dial(ctx)
		if err == nil {
			defer conn.Close()
			if _, err := io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n"); err != nil {
				return err
			}
			b, err := io.ReadAll(conn)
			if err == nil && !bytes.HasSuffix(b, []byte("hello")) {
				err = errors.New("it did not say hello")
			}
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}
