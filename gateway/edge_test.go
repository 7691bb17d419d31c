package gateway_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"peercompute/gateway"
	"peercompute/pkg/mesh"
	"peercompute/pkg/publish"
)

// headers answers with the request's head as the workload saw it.
func headers(w http.ResponseWriter, req *http.Request) {
	fmt.Fprintf(w, "%s %s\nHost: %s\n", req.Method, req.RequestURI, req.Host)
	_ = req.Header.Write(w)
}

func TestPages(t *testing.T) {
	r := newRig(t, http.HandlerFunc(headers))
	for name, tc := range map[string]struct {
		host, accept string
		status       int
		kind, says   string
	}{
		"unknown name, curl":    {"nope-aaaaaaaaaa.localhost", "*/*", 404, "text/plain; charset=utf-8", "peerctl ps"},
		"unknown name, browser": {"nope-aaaaaaaaaa.localhost", "text/html,*/*", 404, "text/html; charset=utf-8", "<h1>No such app</h1>"},
		"foreign host":          {"example.org", "", 404, "text/plain; charset=utf-8", "does not serve"},
		"address":               {"127.0.0.1:80", "", 404, "text/plain; charset=utf-8", "does not serve"},
		"two labels":            {"a." + r.host, "", 404, "text/plain; charset=utf-8", "does not serve"},
		"apex":                  {"localhost:8080", "", 200, "text/plain; charset=utf-8", "Peer Compute gateway"},
		"the name itself":       {strings.ToUpper(r.host) + ".:8080", "", 200, "", "GET /"},
	} {
		req, _ := http.NewRequest(http.MethodGet, "http://x/", nil)
		req.Host = tc.host
		req.Header.Set("Accept", tc.accept)
		res, body := r.do(req)
		if res.StatusCode != tc.status || !strings.Contains(body, tc.says) || tc.kind != "" && res.Header.Get("Content-Type") != tc.kind {
			t.Errorf("%s: %d %s %q", name, res.StatusCode, res.Header.Get("Content-Type"), body)
		}
	}
	got := r.raw("GET /<script>x HTTP/1.1\r\nHost: <script>.localhost\r\nAccept: text/html\r\nConnection: close\r\n\r\n")
	if strings.Contains(got, "<script>") {
		t.Errorf("the page reflects what was asked: %s", got)
	}
}

func TestRates(t *testing.T) {
	for name, set := range map[string]func(*gateway.ProxyConfig){
		"of one client": func(p *gateway.ProxyConfig) { p.RateIP = 5 },
		"of one name":   func(p *gateway.ProxyConfig) { p.RateName = 5 },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, http.HandlerFunc(headers), func(p *gateway.ProxyConfig, _ *gateway.ServerConfig, _ *publish.Config) { set(p) })
			counts := map[int]int{}
			began := time.Now()
			for range 40 {
				res, _ := r.get("/")
				counts[res.StatusCode]++
				if res.StatusCode == http.StatusTooManyRequests && res.Header.Get("Retry-After") == "" {
					t.Error("429 without Retry-After")
				}
			}
			if most := 11 + int(5*time.Since(began).Seconds()); counts[200] < 10 || counts[200] > most || counts[200]+counts[429] != 40 {
				t.Errorf("statuses %v, want a burst of 10 and then 5 a second: at most %d", counts, most)
			}
			time.Sleep(400 * time.Millisecond)
			if res, _ := r.get("/"); res.StatusCode != 200 {
				t.Errorf("after a pause: %d", res.StatusCode)
			}
		})
	}
}

// What is refused for one limit gives nothing back to another: of one publisher no more than
// MaxPerTunnel requests are under way, however many were refused for their name.
func TestConcurrencyPerTunnel(t *testing.T) {
	release := make(chan struct{})
	var inside atomic.Int32
	r := newRig(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		inside.Add(1)
		<-release
	}), func(p *gateway.ProxyConfig, _ *gateway.ServerConfig, _ *publish.Config) {
		p.MaxPerName, p.MaxPerTunnel = 2, 2
	})
	other, err := r.table.Set(gateway.Route{Publisher: r.peer.ID(), Workload: "bbbbbbbbbbbbbbbb", Name: "other"})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if res, err := r.client.Get(r.url("/")); err != nil || res.Body.Close() != nil || res.StatusCode != 200 {
				t.Errorf("within the limits: %v, %v", res, err)
			}
		})
	}
	eventually(t, "two are inside", func() bool { return inside.Load() == 2 })
	for range 5 {
		if res, _ := r.get("/"); res.StatusCode != 503 {
			t.Errorf("over the limit of its name: %d", res.StatusCode)
		}
	}
	req, err := http.NewRequest("GET", r.url("/"), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = other.Label + "." + r.table.Domain()
	res, err := r.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(res.Body)
	res.Body.Close()
	if res.StatusCode != 503 || !strings.Contains(string(body), "Too many requests") {
		t.Errorf("over the limit of the tunnel: %d %s", res.StatusCode, body)
	}
	close(release)
	wg.Wait()
}

func TestConcurrencyPerName(t *testing.T) {
	release := make(chan struct{})
	var inside atomic.Int32
	r := newRig(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		inside.Add(1)
		<-release
	}), func(p *gateway.ProxyConfig, _ *gateway.ServerConfig, _ *publish.Config) { p.MaxPerName = 3 })
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if res, err := r.client.Get(r.url("/")); err != nil || res.Body.Close() != nil || res.StatusCode != 200 {
				t.Errorf("within the limit: %v, %v", res, err)
			}
		})
	}
	eventually(t, "three are inside", func() bool { return inside.Load() == 3 })
	if res, _ := r.get("/"); res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
		t.Errorf("over the limit: %d", res.StatusCode)
	}
	close(release)
	wg.Wait()
	if res, _ := r.get("/"); res.StatusCode != 200 {
		t.Errorf("afterwards: %d", res.StatusCode)
	}
}

// TestWithdraw: a withdrawn name is gone at once, for new requests and for those
// under way, and a second publisher cannot have its label.
func TestWithdraw(t *testing.T) {
	begun := make(chan struct{}, 1)
	r := newRig(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/stream" {
			fmt.Fprint(w, "begun")
			_ = http.NewResponseController(w).Flush()
			begun <- struct{}{}
			<-req.Context().Done()
		}
	}))
	res, err := r.client.Get(r.url("/stream"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	<-begun
	if !r.table.Withdraw(r.peer.ID(), testWorkload) {
		t.Fatal("there was nothing to withdraw")
	}
	if res, _ := r.get("/"); res.StatusCode != 404 {
		t.Errorf("after the withdrawal: %d", res.StatusCode)
	}
	cut := make(chan error, 1)
	go func() {
		_, err := io.ReadAll(res.Body)
		cut <- err
	}()
	select {
	case err := <-cut:
		if err == nil {
			t.Error("the response under way looks whole")
		}
	case <-time.After(time.Second):
		t.Error("the response under way goes on")
	}
	eventually(t, "the tunnel streams end", func() bool { return r.tunnel.Streams() == 0 })

	other, err := r.table.Set(gateway.Route{Publisher: r.public.ID(), Workload: testWorkload, Name: "web"})
	if err != nil || other.Label == r.route.Label {
		t.Errorf("another publisher got %q, %v", other.Label, err)
	}
	if _, err := r.table.Set(r.route); err != nil {
		t.Fatal(err)
	}
	if res, _ := r.get("/"); res.StatusCode != 200 {
		t.Errorf("after publishing again: %d", res.StatusCode)
	}
}

func TestTunnelTrouble(t *testing.T) {
	r := newRig(t, http.HandlerFunc(headers))
	for kind, want := range map[mesh.Kind]int{mesh.Denied: 502, mesh.NotFound: 502, mesh.Overloaded: 503} {
		r.mu.Lock()
		r.deny = mesh.Errorf(kind, "secret reason")
		r.mu.Unlock()
		res, body := r.get("/")
		if res.StatusCode != want || strings.Contains(body, "secret") {
			t.Errorf("%s: %d %q", kind, res.StatusCode, body)
		}
	}
	r.mu.Lock()
	r.deny = nil
	addr := r.workload
	r.workload = "127.0.0.1:1"
	r.mu.Unlock()
	if res, _ := r.get("/"); res.StatusCode != 502 || res.Header.Get("Retry-After") == "" {
		t.Errorf("nothing listens: %d", res.StatusCode)
	}
	r.mu.Lock()
	r.workload = addr
	r.mu.Unlock()
	if res, _ := r.get("/"); res.StatusCode != 200 {
		t.Errorf("it listens again: %d", res.StatusCode)
	}

	// The tunnel goes down with streams in the pool, and comes back.
	if err := r.peer.Disconnect(r.public.ID()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the gateway sees the peer go", func() bool { _, ok := r.public.Connected(r.peer.ID()); return !ok })
	if res, _ := r.get("/"); res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
		t.Errorf("the tunnel is down: %d", res.StatusCode)
	}
	r.peer.Learn(r.public.ID(), r.public.Addrs())
	if err := r.peer.Connect(context.Background(), r.public.ID()); err != nil {
		t.Fatal(err)
	}
	if res, _ := r.get("/"); res.StatusCode != 200 {
		t.Errorf("the tunnel is back: %d", res.StatusCode)
	}
}

// TestSlowClients: clients that send a head, or a body, or read, too slowly are
// shed, while others are served.
func TestSlowClients(t *testing.T) {
	big := strings.Repeat("x", 1<<20)
	var reading atomic.Int32 // responses that the gateway still takes
	r := newRig(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/big" {
			reading.Add(1)
			defer reading.Add(-1)
			for range 64 {
				if _, err := io.WriteString(w, big); err != nil {
					return
				}
			}
			return
		}
		_, _ = io.Copy(io.Discard, req.Body)
	}), func(p *gateway.ProxyConfig, s *gateway.ServerConfig, _ *publish.Config) {
		s.HeaderTimeout, s.WriteTimeout, p.BodyWindow = time.Second, time.Second, time.Second
	})
	slow := map[string]struct{ head, drip string }{
		"head":    {"GET / HTTP/1.1\r\nHost: " + r.host + "\r\n", "X: y\r\n"},
		"counted": {"POST / HTTP/1.1\r\nHost: " + r.host + "\r\nContent-Length: 100000\r\n\r\n", "x"},
		"chunked": {"POST / HTTP/1.1\r\nHost: " + r.host + "\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n"},
		"reader":  {"GET /big HTTP/1.1\r\nHost: " + r.host + "\r\n\r\n", ""},
	}
	var wg sync.WaitGroup
	for name, s := range slow {
		for range 4 {
			wg.Go(func() {
				c, err := net.Dial("tcp", r.addr)
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				_ = c.(*net.TCPConn).SetReadBuffer(16 << 10) // less to fill before a write waits
				start := time.Now()
				_, _ = io.WriteString(c, s.head)
				buf := make([]byte, 1)
				for time.Since(start) < 15*time.Second {
					if s.drip == "" {
						// It reads a byte now and then until the gateway gives up. The
						// kernel's buffers hide that, so look from the workload's side.
						time.Sleep(100 * time.Millisecond)
						if time.Since(start) > 2*time.Second && reading.Load() == 0 {
							return
						}
						_, _ = c.Read(buf)
						continue
					}
					if _, err := io.WriteString(c, s.drip); err != nil {
						return
					}
					_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
					_, err := c.Read(buf)
					if n, ok := err.(net.Error); err == nil || !ok || !n.Timeout() {
						return
					}
				}
				t.Errorf("a slow %s was not shed", name)
			})
		}
	}
	for range 20 {
		if res, _ := r.get("/"); res.StatusCode != 200 {
			t.Errorf("good traffic beside slow clients: %d", res.StatusCode)
		}
		time.Sleep(20 * time.Millisecond)
	}
	r.client.CloseIdleConnections()
	wg.Wait()
}

func TestTooManyConnections(t *testing.T) {
	r := newRig(t, http.HandlerFunc(headers), func(_ *gateway.ProxyConfig, s *gateway.ServerConfig, _ *publish.Config) { s.MaxConnsPerIP = 4 })
	var conns []net.Conn
	for range 4 {
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
	}
	ask := func(c net.Conn) error {
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", r.host)
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err == nil && res.StatusCode != 200 {
			err = errors.New(res.Status)
		}
		return err
	}
	// The accept queue is in order: once the fourth is answered, four are in.
	if err := ask(conns[3]); err != nil {
		t.Fatal(err)
	}
	conns[3].Close()
	eventually(t, "a place is free", func() bool {
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			return false
		}
		defer c.Close()
		return ask(c) == nil
	})
	served := 0
	for range 6 { // three remain open: one more gets in, others are reset
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			continue
		}
		defer c.Close()
		conns = append(conns, c)
	}
	for _, c := range conns[4:] {
		if ask(c) == nil {
			served++ // and stays open
		}
	}
	if served > 1 {
		t.Errorf("%d connections over the limit were served", served-1)
	}
	if err := ask(conns[0]); err != nil {
		t.Errorf("a connection within the limit: %v", err)
	}
}
