// Package e2e proves the product from outside: real programs, real processes, a
// real network on loopback and, where there is one, a real container engine.
package e2e

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"peercompute/pkg/driver/docker/dockertest"
	"peercompute/pkg/mesh"
	"peercompute/pkg/testkit"
	"peercompute/test/internal/testmesh"
)

func TestMain(m *testing.M) { os.Exit(testmesh.Main(m)) }

// work is what `deploy -o json` and `ps -o json` promise to outside programs.
type work struct {
	ID    mesh.WorkloadID
	Name  string
	Peer  string
	Owner string
	Kind  string
	State mesh.State
	URL   string
}

func parse[T any](t *testing.T, text string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("not the JSON that was promised: %v\n%s", err, text)
	}
	return v
}

// deploy runs peerctl deploy and returns what it says.
func deploy(t *testing.T, n *testmesh.Node, args ...string) work {
	t.Helper()
	return parse[work](t, n.Must(append([]string{"deploy", "-o", "json"}, args...)...))
}

func ps(t *testing.T, n *testmesh.Node) []work {
	t.Helper()
	list := parse[[]work](t, n.Must("ps", "-o", "json"))
	slices.SortFunc(list, func(a, b work) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// find is the line of ps with that name.
func find(t *testing.T, n *testmesh.Node, name string) work {
	t.Helper()
	for _, w := range ps(t, n) {
		if w.Name == name {
			return w
		}
	}
	t.Fatalf("%s does not list %q: %v", n.Name, name, ps(t, n))
	return work{}
}

// container builds the example server into an image FROM scratch.
func container(t *testing.T) (ref string) {
	t.Helper()
	testkit.Need(t, "docker")
	return dockertest.Image(t, filepath.Join(testmesh.ModuleRoot(t), "examples", "hello-container"))
}

// get fetches a URL and returns the answer with its whole body.
func get(t *testing.T, c *http.Client, url string) (*http.Response, string) {
	t.Helper()
	return do(t, c, http.MethodGet, url, nil)
}

func do(t *testing.T, c *http.Client, method, url string, body io.Reader) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s %s: the body broke off after %d bytes: %v", method, url, len(data), err)
	}
	return res, string(data)
}

// status fetches a URL for its status alone; 0 if there was no answer.
func status(t *testing.T, c *http.Client, url string) int {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Do(req)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode
}

// within polls until ok holds, fails the test after limit, and returns how long it took.
func within(t *testing.T, limit time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	for !ok() {
		if time.Since(start) > limit {
			t.Fatalf("%s: not within %s", what, limit)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(start)
}

// soon is within for what the product promises: it took no longer than limit of the
// time that the machine had for it.
func soon(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	stall := testkit.WatchStall(t)
	took := within(t, time.Minute, what, ok)
	if took -= stall.Lost(); took > limit {
		t.Errorf("%s: it took %s, want at most %s", what, took, limit)
	}
}

// refused requires that peerctl failed and that the message to the person holds every part.
func refused(t *testing.T, r testmesh.Result, parts ...string) {
	t.Helper()
	if r.Code == 0 {
		t.Fatalf("it was allowed: %s", r.Stdout)
	}
	for _, p := range parts {
		if !strings.Contains(r.Stderr, p) {
			t.Errorf("the refusal does not say %q:\n%s", p, r.Stderr)
		}
	}
}

func repeat(pattern string, n int) []byte {
	return bytes.Repeat([]byte(pattern), n/len(pattern)+1)[:n]
}
