package registry

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"peercompute/pkg/oci"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func digest(c string) string { return "sha256:" + strings.Repeat(c, 64) }

func serve(t *testing.T) (*Registry, string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "layer")
	if err := os.WriteFile(file, []byte("0123456789"), 0o600); err != nil {
		t.Fatal(err)
	}
	img := oci.Image{ID: digest("a"), ConfigSize: 10, OS: "linux", Arch: "amd64", Layers: []oci.Layer{{Digest: digest("b"), Size: 10}}}
	r, err := Serve(img, func(_ context.Context, d string) (*os.File, error) {
		if d != digest("b") {
			return nil, errors.New("not here")
		}
		return os.Open(file)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); http.DefaultClient.CloseIdleConnections() })
	return r, "http://" + r.listener.Addr().String()
}

func ask(t *testing.T, method, url string, header ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(""))
	if err != nil {
		t.Fatal(err)
	}
	if len(header) == 2 {
		req.Header.Set(header[0], header[1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// Whoever does not know the path learns nothing, and nobody can leave anything.
func TestRegistryGivesNothingAway(t *testing.T) {
	r, at := serve(t)
	host, _, err := net.SplitHostPort(r.listener.Addr().String())
	if ip := net.ParseIP(host); err != nil || !ip.IsLoopback() {
		t.Errorf("it listens on %s", host)
	}
	if len(r.secret) < 26 {
		t.Errorf("the path %q can be guessed", r.secret)
	}
	other, _ := serve(t)
	if other.secret == r.secret {
		t.Error("two have the same path")
	}
	for _, path := range []string{
		"/", "/v2", "/v2/_catalog", "/v2/" + other.secret + "/manifests/" + r.digest, "/v2//manifests/" + r.digest, "/v2/x/../" + r.secret[:25] + "/manifests/" + r.digest,
		"/v2/" + r.secret + "/tags/list", "/v2/" + r.secret + "/manifests/latest", "/v2/" + r.secret + "/manifests/" + digest("b"),
		"/v2/" + r.secret + "/blobs/" + digest("c"), "/v2/" + r.secret + "/blobs/../../etc/passwd", "/v2/" + r.secret + "/blobs/",
	} {
		if code, body := ask(t, "GET", at+path); code != http.StatusNotFound || strings.Contains(body, r.secret) {
			t.Errorf("GET %s: %d %q", path, code, body)
		}
	}
	for _, method := range []string{"PUT", "POST", "PATCH", "DELETE"} {
		if code, _ := ask(t, method, at+"/v2/"+r.secret+"/blobs/uploads/"); code != http.StatusMethodNotAllowed {
			t.Errorf("%s: %d", method, code)
		}
	}
	if code, body := ask(t, "GET", at+"/v2/"); code != http.StatusOK || body != "" {
		t.Errorf("GET /v2/: %d %q", code, body)
	}
}

func TestRegistryServesItsImage(t *testing.T) {
	r, at := serve(t)
	base := at + "/v2/" + r.secret
	if code, body := ask(t, "GET", base+"/manifests/"+r.digest); code != http.StatusOK || oci.DigestOf([]byte(body)) != r.digest {
		t.Errorf("the manifest: %d %q", code, body)
	}
	if code, body := ask(t, "GET", base+"/blobs/"+digest("b")); code != http.StatusOK || body != "0123456789" {
		t.Errorf("a layer: %d %q", code, body)
	}
	if code, body := ask(t, "GET", base+"/blobs/"+digest("b"), "Range", "bytes=4-"); code != http.StatusPartialContent || body != "456789" {
		t.Errorf("the rest of a layer: %d %q", code, body)
	}
	if code, _ := ask(t, "GET", base+"/blobs/"+digest("a")); code != http.StatusNotFound {
		t.Errorf("a part that is not here: %d", code)
	}
	if r.Sent() < 16 {
		t.Errorf("%d bytes were counted", r.Sent())
	}
	if want := r.listener.Addr().String() + "/" + r.secret + "@" + r.digest; r.Ref() != want {
		t.Errorf("it is pulled as %s, want %s", r.Ref(), want)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", strings.TrimPrefix(at, "http://")); err == nil {
		t.Error("it answers after it was closed")
	}
}
