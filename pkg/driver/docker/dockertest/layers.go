package dockertest

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"
)

// Layer is the archive of one layer that holds these files, all of them executable.
func Layer(t testing.TB, files map[string][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(files[name]))})
		if err == nil {
			_, err = w.Write(files[name])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Load loads an image of these layers, the lowest first, for this machine. It goes
// with the test. entry is its program.
func Load(t testing.TB, entry string, layers ...[]byte) (ref, id string) {
	t.Helper()
	ref, id = LoadInto(t, Client(t), entry, layers...)
	t.Cleanup(func() { Drop(t, ref) })
	return ref, id
}

// LoadInto loads it into an engine that goes with the test itself.
func LoadInto(t testing.TB, cli *client.Client, entry string, layers ...[]byte) (ref, id string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	ref = "peercompute-test/layers:" + strings.ToLower(rand.Text())
	files, names, diffs := map[string][]byte{}, []string{}, []string{}
	for _, l := range layers {
		d := digestOf(l)
		name := strings.TrimPrefix(d, "sha256:") + ".tar"
		files[name] = l
		names, diffs = append(names, name), append(diffs, d)
	}
	config := encode(t, map[string]any{
		"os": "linux", "architecture": runtime.GOARCH,
		"config": map[string]any{"Entrypoint": []string{entry}, "Labels": map[string]string{label: "yes", "ref": ref}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffs},
	})
	files["config.json"] = config
	files["manifest.json"] = encode(t, []map[string]any{{"Config": "config.json", "RepoTags": []string{ref}, "Layers": names}})
	loaded, err := cli.ImageLoad(ctx, bytes.NewReader(archive(t, files)))
	if err != nil {
		t.Fatalf("cannot load an image: %v", err)
	}
	defer loaded.Body.Close()
	if said, err := io.ReadAll(loaded.Body); err != nil || bytes.Contains(said, []byte(`"error"`)) {
		t.Fatalf("cannot load an image: %s %v", said, err)
	}
	return ref, digestOf(config)
}

// Drop takes an image away from the engine, if it is there.
func Drop(t testing.TB, ref string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if _, err := Client(t).ImageRemove(ctx, ref, image.RemoveOptions{Force: true, PruneChildren: true}); err != nil && !errdefs.IsNotFound(err) {
		t.Errorf("cannot remove the image %s: %v", ref, err)
	}
}
