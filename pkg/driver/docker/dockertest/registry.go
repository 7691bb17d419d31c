package dockertest

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/image"
)

// Registry is an image registry on loopback with one image in it, which nobody
// has pulled before.
type Registry struct {
	Ref      string       // "127.0.0.1:PORT/test/app:1"
	ID       string       // of the image, "sha256:…": the digest of its configuration
	Manifest string       // the digest it is served under
	Layers   atomic.Int32 // how often the layer was fetched
	Asked    atomic.Int32 // how often a manifest was asked for
}

// repository is the one name that the registry knows.
const repository = "test/app"

// NewRegistry starts a registry whose image has one layer, with this content and
// a few bytes that nobody else's has. The image goes from the engine with the test.
func NewRegistry(t testing.TB, content []byte) *Registry {
	t.Helper()
	layer := archive(t, map[string][]byte{"data": content, "own": []byte(rand.Text())})
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(layer); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	config := encode(t, map[string]any{
		"os": "linux", "architecture": runtime.GOARCH, "config": map[string]any{"Entrypoint": []string{"/program"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{digestOf(layer)}},
	})
	const kind = "application/vnd.docker.distribution.manifest.v2+json"
	manifest := encode(t, map[string]any{
		"schemaVersion": 2, "mediaType": kind,
		"config": map[string]any{"mediaType": "application/vnd.docker.container.image.v1+json", "size": len(config), "digest": digestOf(config)},
		"layers": []any{map[string]any{"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": packed.Len(), "digest": digestOf(packed.Bytes())}},
	})
	r := &Registry{ID: digestOf(config), Manifest: digestOf(manifest)}
	mux := http.NewServeMux()
	mux.HandleFunc("/v2/{$}", func(http.ResponseWriter, *http.Request) {})
	serve := func(path, kind string, b []byte, count *atomic.Int32) {
		mux.HandleFunc("/v2/"+repository+path, func(w http.ResponseWriter, _ *http.Request) {
			count.Add(1)
			w.Header().Set("Content-Type", kind)
			w.Header().Set("Docker-Content-Digest", digestOf(b))
			w.Write(b)
		})
	}
	serve("/manifests/1", kind, manifest, &r.Asked)
	serve("/manifests/"+r.Manifest, kind, manifest, &r.Asked)
	serve("/blobs/"+r.ID, "application/octet-stream", config, new(atomic.Int32))
	serve("/blobs/"+digestOf(packed.Bytes()), "application/octet-stream", packed.Bytes(), &r.Layers)
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	r.Ref = strings.TrimPrefix(srv.URL, "http://") + "/" + repository + ":1"
	t.Cleanup(func() { r.Forget(t) })
	return r
}

// Forget removes the image from the engine, if it is there.
func (r *Registry) Forget(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if _, err := Client(t).ImageRemove(ctx, r.ID, image.RemoveOptions{Force: true}); err != nil && !errdefs.IsNotFound(err) {
		t.Errorf("cannot remove the image: %v", err)
	}
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}
