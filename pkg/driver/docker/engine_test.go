package docker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"peercompute/pkg/driver/docker"
	"peercompute/pkg/driver/docker/dockertest"
	"peercompute/pkg/mesh"
)

// engineProxy stands between a driver and the engine. It can tell another story
// of a container than the engine does, and break connections.
type engineProxy struct {
	host    string // for docker.Config
	alter   func(container map[string]any)
	started atomic.Int32 // starts that were asked for
	taken   atomic.Int32 // how many times more a container's name is said to be taken
	server  atomic.Pointer[http.Server]
	path    string
	proxy   *httputil.ReverseProxy
}

func newEngineProxy(t *testing.T, alter func(map[string]any)) *engineProxy {
	t.Helper()
	p := &engineProxy{path: filepath.Join(t.TempDir(), "e.sock"), alter: alter}
	p.host = "unix://" + p.path
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", "/var/run/docker.sock")
	}}
	p.proxy = httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: "engine"})
	p.proxy.Transport = tr
	p.proxy.FlushInterval = -1
	p.proxy.ErrorLog = nil
	p.proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }
	p.proxy.ModifyResponse = p.modify
	p.listen(t)
	t.Cleanup(func() {
		p.breakDown()
		tr.CloseIdleConnections()
	})
	return p
}

func (p *engineProxy) listen(t *testing.T) {
	t.Helper()
	l, err := net.Listen("unix", p.path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/start") {
			p.started.Add(1)
		}
		if strings.HasSuffix(r.URL.Path, "/containers/create") && p.taken.Add(-1) >= 0 {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusConflict)
			_, _ = io.WriteString(w, `{"message":"the name is in use"}`)
			return
		}
		p.proxy.ServeHTTP(w, r)
	})}
	p.server.Store(srv)
	go srv.Serve(l)
}

// breakDown ends the proxy and every connection through it.
func (p *engineProxy) breakDown() { p.server.Load().Close() }

func (p *engineProxy) modify(res *http.Response) error {
	path := res.Request.URL.Path
	if p.alter == nil || res.Request.Method != http.MethodGet || !strings.Contains(path, "/containers/") || !strings.HasSuffix(path, "/json") {
		return nil
	}
	var c map[string]any
	if err := json.NewDecoder(res.Body).Decode(&c); err != nil {
		return err
	}
	res.Body.Close()
	p.alter(c)
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	res.Body = io.NopCloser(bytes.NewReader(b))
	res.ContentLength = int64(len(b))
	res.Header.Del("Content-Length")
	return nil
}

// A container that is not what was asked for is never started, and not kept.
func TestAlteredContainerNeverStarts(t *testing.T) {
	needEngine(t)
	image := dockertest.Image(t, "testdata/actor")
	for name, alter := range map[string]func(map[string]any){
		"privileged": func(c map[string]any) { c["HostConfig"].(map[string]any)["Privileged"] = true },
		"mount":      func(c map[string]any) { c["Mounts"] = []any{map[string]any{"Destination": "/host", "Source": "/"}} },
		"network":    func(c map[string]any) { c["HostConfig"].(map[string]any)["NetworkMode"] = "host" },
		"seccomp":    func(c map[string]any) { c["HostConfig"].(map[string]any)["SecurityOpt"] = []any{"no-new-privileges"} },
		"image":      func(c map[string]any) { c["Image"] = "sha256:" + strings.Repeat("f", 64) },
	} {
		p := newEngineProxy(t, alter)
		node := newNode(t)
		d, err := docker.New(docker.Config{Node: node, Host: p.host})
		if err != nil {
			t.Fatal(err)
		}
		w := workload(spec(image, "serve"))
		if _, err := d.Prepare(t.Context(), w, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Start(t.Context(), w); err == nil || mesh.KindOf(err) != mesh.Unsupported {
			t.Errorf("%s: got %v, want mesh.Unsupported", name, err)
		}
		if n := p.started.Load(); n != 0 {
			t.Errorf("%s: it was started", name)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if left, err := open(t, node).Logs(t.Context(), w.ID, logAll); err == nil || mesh.KindOf(err) != mesh.NotFound {
			t.Errorf("%s: the container was kept: %v, %v", name, left, err)
		}
	}
}

// A name that stays taken for a while, since the engine still makes the container that a
// peerd which was killed asked for, is no end of the workload.
func TestNameThatIsTakenForAWhile(t *testing.T) {
	needEngine(t)
	p := newEngineProxy(t, nil)
	d, err := docker.New(docker.Config{Node: newNode(t), Host: p.host})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	p.taken.Store(5)
	if err := answer(t, start(t, d, workload(spec(dockertest.Image(t, "testdata/actor"), "serve")))); err != nil {
		t.Error(err)
	}
	if n := p.taken.Load(); n >= 0 {
		t.Errorf("it was not asked for %d times more", n+1)
	}
}

// Wait outlasts an engine that goes away and comes back.
func TestWaitOutlastsTheEngine(t *testing.T) {
	needEngine(t)
	p := newEngineProxy(t, nil)
	d, err := docker.New(docker.Config{Node: newNode(t), Host: p.host})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	task := start(t, d, workload(spec(dockertest.Image(t, "testdata/actor"), "serve")))
	if err := answer(t, task); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	type result struct {
		exit mesh.Exit
		err  error
	}
	ended := make(chan result, 1)
	go func() {
		exit, err := task.Wait(ctx)
		ended <- result{exit, err}
	}()
	p.breakDown()
	select {
	case r := <-ended:
		t.Fatalf("it took the engine's end for the workload's: %+v", r)
	case <-time.After(300 * time.Millisecond):
	}
	if err := answer(t, task); err != nil {
		t.Errorf("without the engine the workload does not answer: %v", err)
	}
	p.listen(t)
	if err := task.Stop(ctx, 0); err != nil {
		t.Fatal(err)
	}
	if r := <-ended; r.err != nil || r.exit.Kind != mesh.Canceled {
		t.Errorf("got %+v", r)
	}
}
