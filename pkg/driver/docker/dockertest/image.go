// Package dockertest makes container images for tests: one static Go program,
// alone in an image FROM scratch, imported through the engine's API. No registry
// and no base image is needed, and nothing stays behind.
package dockertest

import (
	"archive/tar"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"
)

const (
	label   = "peercompute.test"
	timeout = 2 * time.Minute
)

// Image builds the Go package in dir and puts it into an image as its entry point.
// It returns the image's reference; the image goes with the test. changes are
// further lines of a Dockerfile ("VOLUME /data").
func Image(t testing.TB, dir string, changes ...string) (ref string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	cli := Client(t)
	ref = "peercompute-test/" + filepath.Base(dir) + ":" + strings.ToLower(rand.Text())
	program := Program(t, dir)
	r, w := io.Pipe()
	packed := make(chan error, 1)
	go func() {
		err := pack(w, program)
		w.CloseWithError(err)
		packed <- err
	}()
	changes = append([]string{`ENTRYPOINT ["/program"]`, "LABEL " + label + "=yes"}, changes...)
	body, err := cli.ImageImport(ctx, image.ImportSource{Source: r, SourceName: "-"}, ref, image.ImportOptions{Changes: changes})
	r.Close()
	if err := errors.Join(err, <-packed); err != nil {
		t.Fatalf("cannot import an image: %v", err)
	}
	defer body.Close()
	var answer struct{ Status, Error string }
	if err := json.NewDecoder(body).Decode(&answer); err != nil || answer.Error != "" {
		t.Fatalf("cannot import an image: %s %v", answer.Error, err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		if _, err := cli.ImageRemove(ctx, ref, image.RemoveOptions{Force: true}); err != nil && !errdefs.IsNotFound(err) {
			t.Errorf("cannot remove the image: %v", err)
		}
	})
	return ref
}

// Chosen is the engine that tests use, and the runtime that workloads have there,
// empty = its default. Set, they let the same tests run under gVisor.
func Chosen() (host, runtime string) {
	if host = os.Getenv("PEERCOMPUTE_TEST_ENGINE"); host == "" {
		host = client.DefaultDockerHost
	}
	return host, os.Getenv("PEERCOMPUTE_TEST_RUNTIME")
}

// ByManifest reports whether the engine that tests use keeps its images with containerd,
// and so calls them by their manifests and not by their configurations.
func ByManifest(t testing.TB) bool {
	t.Helper()
	info, err := Client(t).Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(info.DriverStatus, func(s [2]string) bool { return strings.HasPrefix(s[1], "io.containerd.snapshotter.") })
}

// Client is a client of the local engine that the test closes.
func Client(t testing.TB) *client.Client {
	host, _ := Chosen()
	return ClientOf(t, host)
}

// ClientOf is a client of the engine at an address.
func ClientOf(t testing.TB, host string) *client.Client {
	t.Helper()
	cli, err := client.NewClientWithOpts(client.WithHost(host), client.WithAPIVersionNegotiation())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cli.Close() })
	return cli
}

// Program builds the Go package in dir as a static Linux program and returns its file.
func Program(t testing.TB, dir string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "program")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", file, ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cannot build %s: %v\n%s", dir, err, out)
	}
	return file
}

func pack(w io.Writer, program string) error {
	f, err := os.Open(program)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	out := tar.NewWriter(w)
	if err := out.WriteHeader(&tar.Header{Name: "program", Mode: 0o755, Size: st.Size()}); err != nil {
		return err
	}
	if _, err := io.Copy(out, f); err != nil {
		return err
	}
	return out.Close()
}
