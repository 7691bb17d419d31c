package gateway_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"go.uber.org/goleak"

	"peercompute/gateway"
	"peercompute/pkg/mesh"
	"peercompute/pkg/peernet"
	"peercompute/pkg/publish"
	"peercompute/pkg/wire"
)

const testWorkload = mesh.WorkloadID("aaaaaaaaaaaaaaa2")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type allowAll struct{}

func (allowAll) Allowed(mesh.PeerID) bool { return true }

// rig is a gateway and a peer, connected over loopback, with one workload.
type rig struct {
	t      testing.TB
	table  *gateway.Table
	peer   *peernet.Net
	public *peernet.Net
	tunnel *publish.Tunnels
	addr   string // of the gateway's HTTP side
	host   string // LABEL.localhost
	route  gateway.Route
	client *http.Client

	mu       sync.Mutex
	workload string // address that Dial reaches
	deny     error  // what Allow says
	dials    atomic.Int64
}

type option func(*gateway.ProxyConfig, *gateway.ServerConfig, *publish.Config)

func newRig(t testing.TB, workload http.Handler, opts ...option) *rig {
	t.Helper()
	srv := httptest.NewServer(workload)
	t.Cleanup(srv.Close)
	return newRigTo(t, srv.Listener.Addr().String(), opts...)
}

// newRigTo is newRig for a workload that listens on addr.
func newRigTo(t testing.TB, addr string, opts ...option) *rig {
	t.Helper()
	r := &rig{t: t, workload: addr}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() {
		if r.client != nil {
			r.client.CloseIdleConnections()
		}
		cancel()
		wg.Wait()
	})
	start := func(listen ...string) *peernet.Net {
		key, _, err := crypto.GenerateEd25519Key(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		n, err := peernet.New(peernet.Config{Key: key, Listen: listen, Gate: allowAll{}})
		if err != nil {
			t.Fatal(err)
		}
		ready := make(chan struct{})
		wg.Go(func() {
			if err := n.Run(ctx, func() { close(ready) }); err != nil {
				t.Error(err)
			}
		})
		<-ready
		return n
	}
	r.public, r.peer = start("/ip4/127.0.0.1/tcp/0"), start()

	var pc gateway.ProxyConfig
	var sc gateway.ServerConfig
	uc := publish.Config{Allow: r.allow, Dial: r.dial}
	sc.MaxConnsPerIP = -1
	sc.ShutdownGrace = time.Second
	for _, o := range opts {
		o(&pc, &sc, &uc)
	}
	var err error
	if r.tunnel, err = publish.New(uc); err != nil {
		t.Fatal(err)
	}
	r.peer.Handle(wire.TunnelProtocol, func(ctx context.Context, s *peernet.Stream) { r.tunnel.Serve(ctx, s.Peer(), s) })
	r.peer.Learn(r.public.ID(), r.public.Addrs())
	if err := r.peer.Connect(ctx, r.public.ID()); err != nil {
		t.Fatal(err)
	}

	if r.table, err = gateway.NewTable(gateway.TableConfig{Domain: "localhost"}); err != nil {
		t.Fatal(err)
	}
	pc.Table, pc.Dial = r.table, gateway.Tunnels(r.public)
	p, err := gateway.NewProxy(pc)
	if err != nil {
		t.Fatal(err)
	}
	sc.Proxy = p
	s, err := gateway.NewServer(sc)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	wg.Go(func() {
		if err := s.Run(ctx, ln); err != nil {
			t.Error(err)
		}
	})
	r.addr = ln.Addr().String()
	if r.route, err = r.table.Set(gateway.Route{Publisher: r.peer.ID(), Workload: testWorkload, Name: "web"}); err != nil {
		t.Fatal(err)
	}
	r.host = r.route.Label + ".localhost"
	r.client = &http.Client{
		Transport:     &http.Transport{DialContext: r.dialGateway, MaxIdleConnsPerHost: 64},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return r
}

func (r *rig) allow(gw mesh.PeerID, id mesh.WorkloadID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if gw != r.public.ID() || id != testWorkload {
		return mesh.Errorf(mesh.Denied, "not yours")
	}
	return r.deny
}

func (r *rig) dial(ctx context.Context, _ mesh.WorkloadID) (net.Conn, func(), error) {
	r.mu.Lock()
	addr := r.workload
	r.dials.Add(1)
	r.mu.Unlock()
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	return c, func() {}, err
}

func (r *rig) dialGateway(ctx context.Context, _, _ string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", r.addr)
}

// url is the workload's public address.
func (r *rig) url(path string) string { return "http://" + r.host + path }

func (r *rig) do(req *http.Request) (*http.Response, string) {
	r.t.Helper()
	res, err := r.client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatalf("body: %v", err)
	}
	return res, string(body)
}

func (r *rig) get(path string) (*http.Response, string) {
	r.t.Helper()
	req, err := http.NewRequest(http.MethodGet, r.url(path), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return r.do(req)
}

// raw sends bytes to the gateway and returns all it answers until it closes.
func (r *rig) raw(request string) string {
	r.t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, strings.ReplaceAll(request, "HOST", r.host)); err != nil {
		r.t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if err != nil && len(b) == 0 {
		return fmt.Sprint("error: ", err)
	}
	return string(b)
}

func TestGet(t *testing.T) {
	r := newRig(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		fmt.Fprintf(w, "%s %s", req.Method, req.RequestURI)
	}))
	for range 3 {
		res, body := r.get("/a%2Fb?c=d&e")
		if res.StatusCode != 200 || body != "GET /a%2Fb?c=d&e" {
			t.Fatalf("got %d %q", res.StatusCode, body)
		}
	}
	if n := r.dials.Load(); n != 1 {
		t.Errorf("%d connections to the workload for 3 requests, want 1", n)
	}
}
