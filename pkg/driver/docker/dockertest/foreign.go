package dockertest

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/image"
)

// ForeignImage loads an empty image for s390x, which no machine of ours is, and
// returns its reference; the image goes with the test.
func ForeignImage(t testing.TB) (ref string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	cli := Client(t)
	ref = "peercompute-test/foreign:" + strings.ToLower(rand.Text())

	layer := archive(t, map[string][]byte{"empty": nil})
	sum := sha256.Sum256(layer)
	config, err := json.Marshal(map[string]any{
		"os": "linux", "architecture": "s390x",
		"config": map[string]any{"Entrypoint": []string{"/program"}, "Labels": map[string]string{label: "yes"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + hex.EncodeToString(sum[:])}},
	})
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": []string{ref}, "Layers": []string{"layer.tar"}}})
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := cli.ImageLoad(ctx, bytes.NewReader(archive(t, map[string][]byte{
		"config.json": config, "layer.tar": layer, "manifest.json": manifest,
	})))
	if err != nil {
		t.Fatalf("cannot load an image: %v", err)
	}
	defer loaded.Body.Close()
	if _, err := io.Copy(io.Discard, loaded.Body); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		if _, err := cli.ImageRemove(ctx, ref, image.RemoveOptions{Force: true}); err != nil {
			t.Errorf("cannot remove the image: %v", err)
		}
	})
	return ref
}

func archive(t testing.TB, files map[string][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, data := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
