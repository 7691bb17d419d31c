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

// TestSpoofing: nothing that a client says about itself reaches the workload as
// if the gateway had said it.
func TestSpoofing(t *testing.T) {
	r := newRig(t, http.HandlerFunc(headers))
	got := r.raw("GET / HTTP/1.1\r\nHost: HOST\r\n" +
		"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 7.7.7.7\r\nx-forwarded-host: evil.example\r\nX-Forwarded-Proto: https\r\n" +
		"X-Forwarded-Prefix: /evil\r\nForwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nTrue-Client-IP: 6.6.6.6\r\n" +
		"X_Forwarded_For: 6.6.6.6\r\nREMOTE_USER: 6.6.6.6\r\nProxy: http://6.6.6.6\r\nX-Original-URL: /6.6.6.6\r\n" +
		"Connection: close, X-Forwarded-For, X-Forwarded-Proto, X-Secret\r\nX-Secret: 6.6.6.6\r\nKeep-Alive: 6.6.6.6\r\n" +
		"Proxy-Authorization: 6.6.6.6\r\nTE: gzip, trailers\r\nUpgrade: h2c\r\nHTTP2-Settings: 6.6.6.6\r\nX-Kept: yes\r\n\r\n")
	if strings.Contains(got, "6.6.6.6") || strings.Contains(got, "7.7.7.7") || strings.Contains(got, "evil") || strings.Contains(got, "h2c") {
		t.Errorf("spoofed headers came through:\n%s", got)
	}
	for _, want := range []string{
		"\nX-Forwarded-For: 127.0.0.1\r\n", "\nX-Forwarded-Host: " + r.host + "\r\n", "\nX-Forwarded-Proto: http\r\n",
		"\nForwarded: for=127.0.0.1;host=\"" + r.host + "\";proto=http\r\n", "\nX-Kept: yes\r\n", "\nTe: trailers\r\n", "\nHost: " + r.host + "\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in:\n%s", want, got)
		}
	}
}

func TestSiblingCookies(t *testing.T) {
	var cookies []string
	r := newRig(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header()["Set-Cookie"] = cookies }))
	cookies = []string{
		"a=1; Domain=localhost; Path=/", "b=1; domain = .LOCALHOST ;Secure", "c=1;DOMAIN=other.localhost", "d=1; Domain=" + r.host,
		"e=1; Domain=.localhost; Domain=" + r.host, "domain=localhost; Path=/",
	}
	want := []string{
		"a=1; Path=/", "b=1;Secure", "c=1", "d=1; Domain=" + r.host, "e=1; Domain=" + r.host, "domain=localhost; Path=/",
	}
	res, _ := r.get("/")
	if got := res.Header["Set-Cookie"]; fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// TestSmuggling: each odd request is refused, or reaches the workload as exactly
// one request. The workload counts what it gets on raw connections.
func TestSmuggling(t *testing.T) {
	var seen atomic.Int32
	var smuggled atomic.Bool
	r := newRig(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		seen.Add(1)
		if strings.Contains(req.URL.Path, "evil") || req.Host == "evil" {
			smuggled.Store(true)
		}
		_, _ = io.Copy(io.Discard, req.Body)
		fmt.Fprint(w, "served")
	}))
	const evil = "GET /evil HTTP/1.1\r\nHost: HOST\r\n\r\n"
	evilLength := fmt.Sprintf("Content-Length: %d\r\n\r\n", len(strings.ReplaceAll(evil, "HOST", r.host)))
	const host = "Host: HOST\r\nConnection: close\r\n"
	for name, tc := range map[string]struct {
		request string
		most    int32 // requests that may reach the workload
		refused bool  // and must be answered with a 4xx
	}{
		"TE and CL":             {"POST / HTTP/1.1\r\n" + host + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + evil, 1, false},
		"CL and CL":             {"POST / HTTP/1.1\r\n" + host + "Content-Length: 0\r\nContent-Length: 38\r\n\r\n" + evil, 0, true},
		"CL list":               {"POST / HTTP/1.1\r\n" + host + "Content-Length: 0, 38\r\n\r\n" + evil, 0, true},
		"CL plus":               {"POST / HTTP/1.1\r\n" + host + "Content-Length: +3\r\n\r\nabc", 0, true},
		"CL negative":           {"POST / HTTP/1.1\r\n" + host + "Content-Length: -1\r\n\r\nabc", 0, true},
		"TE unknown":            {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: xchunked\r\n\r\n" + evil, 0, true},
		"TE twice":              {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + evil, 0, true},
		"TE list":               {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + evil, 0, true},
		"TE with space":         {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + evil, 0, true},
		"TE folded":             {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + evil, 1, false},
		"two hosts":             {"GET / HTTP/1.1\r\nHost: HOST\r\nHost: evil\r\n\r\n", 0, true},
		"no host":               {"GET / HTTP/1.1\r\n\r\n", 0, true},
		"host with path":        {"GET / HTTP/1.1\r\nHost: HOST/evil\r\n\r\n", 0, true},
		"host with user":        {"GET / HTTP/1.1\r\nHost: evil@HOST\r\n\r\n", 0, true},
		"host list":             {"GET / HTTP/1.1\r\nHost: HOST, evil\r\n\r\n", 0, true},
		"host with bad port":    {"GET / HTTP/1.1\r\nHost: HOST:80x\r\n\r\n", 0, true},
		"absolute URI":          {"GET http://HOST/ HTTP/1.1\r\nHost: evil\r\nConnection: close\r\n\r\n", 1, false},
		"absolute to another":   {"GET http://evil/ HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n", 0, true},
		"absolute with user":    {"GET http://evil@HOST/ HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n", 0, true},
		"other scheme":          {"GET file:///etc/passwd HTTP/1.1\r\n" + host + "\r\n", 0, true},
		"no slash":              {"GET evil HTTP/1.1\r\n" + host + "\r\n", 0, true},
		"CONNECT":               {"CONNECT HOST:80 HTTP/1.1\r\n" + host + "\r\n", 0, true},
		"TRACE":                 {"TRACE / HTTP/1.1\r\n" + host + "\r\n", 0, true},
		"space in the target":   {"GET / /evil HTTP/1.1\r\n" + host + "\r\n", 0, true},
		"HTTP/1.1 twice":        {"GET /evil HTTP/1.1 HTTP/1.1\r\n" + host + "\r\n", 0, true},
		"bare LF":               {"GET / HTTP/1.1\nHost: HOST\nConnection: close\n\n", 1, false},
		"CR in a value":         {"GET / HTTP/1.1\r\n" + host + "X: a\rb: evil\r\n\r\n", 1, true},
		"NUL in a value":        {"GET / HTTP/1.1\r\n" + host + "X: a\x00b\r\n\r\n", 0, true},
		"space before a header": {"GET / HTTP/1.1\r\n X: y\r\n" + host + "\r\n", 0, true},
		"odd header name":       {"GET / HTTP/1.1\r\n" + host + "X(y): z\r\n\r\n", 0, true},
		"head too large":        {"GET / HTTP/1.1\r\n" + host + "X: " + strings.Repeat("y", 100<<10) + "\r\n\r\n", 0, true},
		"chunk size overflow":   {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", 1, true},
		"chunk with bare LF":    {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n3\nabc\n0\n\n" + evil, 1, true},
		"chunk size negative":   {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n" + evil, 1, true},
		"body on GET":           {"GET / HTTP/1.1\r\n" + host + evilLength + evil, 1, false},
		"upgrade with a body":   {"GET / HTTP/1.1\r\nHost: HOST\r\nConnection: close, Upgrade\r\nUpgrade: websocket\r\n" + evilLength + evil, 1, false},
		"h2 preface":            {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0, true},
		"HTTP/0.9":              {"GET /evil\r\n\r\n", 0, true},
		"HTTP/3.0":              {"GET / HTTP/3.0\r\n" + host + "\r\n", 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			seen.Store(0)
			smuggled.Store(false)
			got := r.raw(tc.request)
			status := 0
			_, _ = fmt.Sscanf(got, "HTTP/1.1 %d", &status)
			if n := seen.Load(); n > tc.most || tc.most == 1 && !tc.refused && n != 1 {
				t.Errorf("%d requests reached the workload, at most %d may; answer:\n%.300s", n, tc.most, got)
			}
			if smuggled.Load() {
				t.Errorf("a smuggled request was served; answer:\n%.300s", got)
			}
			if tc.refused && (status < 400 || status > 505) {
				t.Errorf("not refused: %.300q", got)
			}
			if !tc.refused && status != 200 {
				t.Errorf("not served: %.300q", got)
			}
			if n := strings.Count(got, "HTTP/1.1 "); n > 1 {
				t.Errorf("%d answers to one request:\n%.600s", n, got)
			}
		})
	}
}

// TestUpgradeRefused: a workload that does not upgrade answers as usual, and what
// the client sends after its request is never taken for upgraded bytes.
func TestUpgradeRefused(t *testing.T) {
	r := newRig(t, http.HandlerFunc(headers))
	got := r.raw("GET /a HTTP/1.1\r\nHost: HOST\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" +
		"GET /b HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n")
	if strings.Count(got, "HTTP/1.1 200 OK") != 2 || !strings.Contains(got, "GET /a") || !strings.Contains(got, "GET /b") {
		t.Errorf("got %s", got)
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
			for range 40 {
				res, _ := r.get("/")
				counts[res.StatusCode]++
				if res.StatusCode == http.StatusTooManyRequests && res.Header.Get("Retry-After") == "" {
					t.Error("429 without Retry-After")
				}
			}
			if counts[200] < 10 || counts[429] < 20 {
				t.Errorf("statuses %v, want a burst of 10 and then 5 a second", counts)
			}
			time.Sleep(400 * time.Millisecond)
			if res, _ := r.get("/"); res.StatusCode != 200 {
				t.Errorf("after a pause: %d", res.StatusCode)
			}
		})
	}
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
		for range 10 {
			wg.Go(func() {
				c, err := net.Dial("tcp", r.addr)
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
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
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	eventually(t, "a place is free", func() bool {
		c2, err := net.Dial("tcp", r.addr)
		if err != nil {
			return false
		}
		defer c2.Close()
		_ = c.Close()
		return ask(c2) == nil
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
