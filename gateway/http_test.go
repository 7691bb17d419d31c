package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"peercompute/gateway"
	"peercompute/pkg/publish"
)

// TestStreamsBothWays talks in turns: each line of the request's body is
// answered before the next is sent.
func TestStreamsBothWays(t *testing.T) {
	r := newRig(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		rc := http.NewResponseController(w)
		_ = rc.EnableFullDuplex()
		w.WriteHeader(200)
		_ = rc.Flush()
		in := bufio.NewScanner(req.Body)
		for in.Scan() {
			fmt.Fprintf(w, "echo %s\n", in.Text())
			_ = rc.Flush()
		}
	}))
	pr, pw := io.Pipe()
	req, _ := http.NewRequest(http.MethodPost, r.url("/"), pr)
	res, err := r.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	out := bufio.NewScanner(res.Body)
	for i := range 5 {
		fmt.Fprintf(pw, "line %d\n", i)
		if !out.Scan() || out.Text() != fmt.Sprintf("echo line %d", i) {
			t.Fatalf("turn %d: got %q, %v", i, out.Text(), out.Err())
		}
	}
	pw.Close()
	if out.Scan() || out.Err() != nil {
		t.Errorf("after the end: %q, %v", out.Text(), out.Err())
	}
}

func TestEventsArriveAtOnce(t *testing.T) {
	next := make(chan string)
	r := newRig(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		rc := http.NewResponseController(w)
		_ = rc.Flush()
		for e := range next {
			fmt.Fprintf(w, "data: %s\n\n", e)
			_ = rc.Flush()
		}
	}))
	res, err := r.client.Get(r.url("/"))
	if err != nil {
		t.Fatal(err) // the head must come before the first event
	}
	defer res.Body.Close()
	in := bufio.NewReader(res.Body)
	for i := range 3 {
		want := fmt.Sprintf("data: %d\n", i)
		next <- fmt.Sprint(i)
		if got, err := in.ReadString('\n'); got != want {
			t.Fatalf("event %d: got %q, %v", i, got, err)
		}
		_, _ = in.ReadString('\n')
	}
	close(next)
	if rest, err := io.ReadAll(in); err != nil || len(rest) != 0 {
		t.Errorf("after the last event: %q, %v", rest, err)
	}
}

func TestWebSocket(t *testing.T) {
	r := newRig(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		c, err := websocket.Accept(w, req, &websocket.AcceptOptions{Subprotocols: []string{"chat"}, InsecureSkipVerify: true})
		if err != nil {
			t.Errorf("accept: %v", err)
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(1 << 20)
		for {
			kind, b, err := c.Read(req.Context())
			if err != nil {
				return
			}
			if c.Write(req.Context(), kind, b) != nil {
				return
			}
		}
	}))
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c, _, err := websocket.Dial(ctx, r.url("/"), &websocket.DialOptions{HTTPClient: r.client, Subprotocols: []string{"chat"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	c.SetReadLimit(1 << 20)
	if c.Subprotocol() != "chat" {
		t.Errorf("subprotocol %q", c.Subprotocol())
	}
	for _, size := range []int{0, 1, 125, 70_000, 900_000} {
		want := bytes.Repeat([]byte{'x'}, size)
		if err := c.Write(ctx, websocket.MessageBinary, want); err != nil {
			t.Fatal(err)
		}
		_, got, err := c.Read(ctx)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes came back as %d, %v", size, len(got), err)
		}
	}
	if err := c.Close(websocket.StatusNormalClosure, "bye"); err != nil {
		t.Errorf("close: %v", err)
	}
	eventually(t, "the tunnel stream ends", func() bool { return r.tunnel.Streams() == 0 })
}

// eventually waits for cond.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("timed out: %s", what)
		}
	}
}

func TestHeadersAndRedirects(t *testing.T) {
	r := newRig(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch req.URL.Path {
		case "/repeat":
			w.Header()["X-Many"] = req.Header["X-Many"]
			w.Header()["Set-Cookie"] = []string{"a=1", "b=2; Path=/"}
			w.WriteHeader(http.StatusTeapot)
		case "/redirect":
			http.Redirect(w, req, "/elsewhere?x=1", http.StatusSeeOther)
		case "/untyped":
			w.Header()["Content-Type"] = nil
			fmt.Fprint(w, "<html>")
		}
	}))
	req, _ := http.NewRequest(http.MethodGet, r.url("/repeat"), nil)
	req.Header["X-Many"] = []string{"one", "two, three", "one"}
	res, _ := r.do(req)
	if got := res.Header["X-Many"]; res.StatusCode != 418 || fmt.Sprint(got) != "[one two, three one]" {
		t.Errorf("status %d, repeated header %q", res.StatusCode, got)
	}
	if got := res.Header["Set-Cookie"]; fmt.Sprint(got) != "[a=1 b=2; Path=/]" {
		t.Errorf("cookies %q", got)
	}
	res, _ = r.get("/redirect")
	if res.StatusCode != 303 || res.Header.Get("Location") != "/elsewhere?x=1" {
		t.Errorf("redirect: %d to %q", res.StatusCode, res.Header.Get("Location"))
	}
	res, _ = r.get("/untyped")
	if ct, ok := res.Header["Content-Type"]; ok {
		t.Errorf("the gateway guessed a type: %q", ct)
	}
}

func TestTrailers(t *testing.T) {
	r := newRig(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		_, _ = io.Copy(w, req.Body)
		w.Header().Set("X-Sum", "got "+req.Trailer.Get("X-Request-Sum"))
		w.Header().Set(http.TrailerPrefix+"X-Late", "unannounced")
	}))
	req, _ := http.NewRequest(http.MethodPost, r.url("/"), io.MultiReader(strings.NewReader("abc"), strings.NewReader("def")))
	req.Trailer = http.Header{"X-Request-Sum": {"42"}}
	res, body := r.do(req)
	if body != "abcdef" {
		t.Errorf("body %q", body)
	}
	if res.Trailer.Get("X-Sum") != "got 42" || res.Trailer.Get("X-Late") != "unannounced" {
		t.Errorf("trailers %v", res.Trailer)
	}
}

func TestMethodsWithoutBody(t *testing.T) {
	r := newRig(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch req.URL.Path {
		case "/none":
			w.WriteHeader(http.StatusNoContent)
		case "/same":
			w.WriteHeader(http.StatusNotModified)
		default:
			w.Header().Set("Content-Length", "1234")
			w.Header().Set("X-Method", req.Method)
			if req.Method != http.MethodHead {
				_, _ = w.Write(make([]byte, 1234))
			}
		}
	}))
	for range 2 { // the second on the first's stream
		req, _ := http.NewRequest(http.MethodHead, r.url("/"), nil)
		res, body := r.do(req)
		if res.ContentLength != 1234 || body != "" || res.Header.Get("X-Method") != "HEAD" {
			t.Errorf("HEAD: length %d, body %q, %v", res.ContentLength, body, res.Header)
		}
		if res, body := r.get("/none"); res.StatusCode != 204 || body != "" {
			t.Errorf("204: %d %q", res.StatusCode, body)
		}
		if res, body := r.get("/same"); res.StatusCode != 304 || body != "" {
			t.Errorf("304: %d %q", res.StatusCode, body)
		}
	}
	if r.dials != 1 {
		t.Errorf("%d connections to the workload, want 1", r.dials)
	}
}

// TestEarlyResponse: the workload answers before it has read the body. The
// client sees the whole answer, and later requests are not disturbed.
func TestEarlyResponse(t *testing.T) {
	r := newRig(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodPost {
			w.Header().Set("Connection", "close")
			http.Error(w, "too big for me", http.StatusRequestEntityTooLarge)
			return
		}
		fmt.Fprint(w, "fine")
	}))
	for i := range 5 {
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: %s\r\nContent-Length: 10000000\r\n\r\n%s", r.host, strings.Repeat("x", 1000*i))
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		body, err := io.ReadAll(res.Body)
		if res.StatusCode != 413 || string(body) != "too big for me\n" || err != nil {
			t.Errorf("round %d: %d %q %v", i, res.StatusCode, body, err)
		}
		if !res.Close {
			t.Error("the client's connection stays open with half a body on the way")
		}
		c.Close()
		if _, body := r.get("/"); body != "fine" {
			t.Errorf("the next request got %q", body)
		}
	}
}

func TestExpectContinue(t *testing.T) {
	r := newRig(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/no" {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		n, _ := io.Copy(io.Discard, req.Body)
		fmt.Fprint(w, n)
	}))
	for path, want := range map[string]struct {
		status int
		body   string
		told   bool
	}{"/yes": {200, "100000", true}, "/no": {403, "no\n", false}} {
		var told, sent atomic.Bool
		body := readerFunc(func(b []byte) (int, error) {
			sent.Store(true)
			return 0, io.EOF
		})
		req, _ := http.NewRequest(http.MethodPost, r.url(path), io.MultiReader(strings.NewReader(strings.Repeat("x", 100000)), body))
		req.ContentLength = 100000
		req.Header.Set("Expect", "100-continue")
		trace := &httptrace.ClientTrace{Got100Continue: func() { told.Store(true) }}
		tr := &http.Transport{DialContext: r.dialGateway, ExpectContinueTimeout: 10 * time.Second}
		res, err := tr.RoundTrip(req.WithContext(httptrace.WithClientTrace(context.Background(), trace)))
		if err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(res.Body)
		res.Body.Close()
		tr.CloseIdleConnections()
		if res.StatusCode != want.status || string(got) != want.body || told.Load() != want.told {
			t.Errorf("%s: %d %q, told to continue: %v", path, res.StatusCode, got, told.Load())
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

func TestInformationalResponses(t *testing.T) {
	r := newRig(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		fmt.Fprint(w, "done")
	}))
	var hints atomic.Int32
	trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		if code == 103 && h.Get("Link") != "" {
			hints.Add(1)
		}
		return nil
	}}
	req, _ := http.NewRequestWithContext(httptrace.WithClientTrace(context.Background(), trace), http.MethodGet, r.url("/"), nil)
	res, body := r.do(req)
	if res.StatusCode != 200 || body != "done" || hints.Load() != 1 || res.Header.Get("Link") != "" {
		t.Errorf("%d %q, %d hints, Link %q", res.StatusCode, body, hints.Load(), res.Header.Get("Link"))
	}
}

// TestParallelPosts posts 4 MiB eight times at once to a workload that answers
// 1 MiB while it still reads.
func TestParallelPosts(t *testing.T) {
	answer := make([]byte, 1<<20)
	_, _ = rand.Read(answer)
	r := newRig(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		rc := http.NewResponseController(w)
		_ = rc.EnableFullDuplex()
		_, _ = w.Write(answer)
		_ = rc.Flush()
		h := sha256.New()
		_, _ = io.Copy(h, req.Body)
		_, _ = w.Write(h.Sum(nil))
	}))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			sent := make([]byte, 4<<20)
			_, _ = rand.Read(sent)
			sum := sha256.Sum256(sent)
			// The client writes all before it reads, like a simple one does.
			c, err := net.Dial("tcp", r.addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(60 * time.Second))
			fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n", r.host, len(sent))
			if _, err := c.Write(sent); err != nil {
				t.Error(err)
				return
			}
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Error(err)
				return
			}
			got, err := io.ReadAll(res.Body)
			if err != nil || !bytes.Equal(got, append(answer[:len(answer):len(answer)], sum[:]...)) {
				t.Errorf("got %d bytes, %v", len(got), err)
			}
		})
	}
	wg.Wait()
}

func TestChunkedUpload(t *testing.T) {
	r := newRig(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		h := sha256.New()
		n, err := io.Copy(h, req.Body)
		fmt.Fprintf(w, "%d %x %v %v", n, h.Sum(nil), err, req.TransferEncoding)
	}))
	for _, size := range []int{1, 5, 65_524, 65_525, 1 << 20} {
		data := make([]byte, size)
		_, _ = rand.Read(data)
		req, _ := http.NewRequest(http.MethodPut, r.url("/"), struct{ io.Reader }{bytes.NewReader(data)})
		_, body := r.do(req)
		if want := fmt.Sprintf("%d %x <nil> [chunked]", size, sha256.Sum256(data)); body != want {
			t.Errorf("got %s, want %s", body, want)
		}
	}
}

// TestStaleStream: the workload closes a kept connection behind the gateway's
// back. A request that can be repeated is, and one that cannot gets a new stream.
func TestStaleStream(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var served []string
	var wg sync.WaitGroup
	defer wg.Wait()
	defer ln.Close()
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				req, err := http.ReadRequest(bufio.NewReader(c))
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, req.Body)
				mu.Lock()
				served = append(served, req.Method)
				mu.Unlock()
				fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			}) // and closes, though it did not say so
		}
	})
	r := newRigTo(t, ln.Addr().String())
	methods := []string{"GET", "GET", "POST", "POST", "DELETE"}
	for _, m := range methods {
		var body io.Reader
		if m == "POST" {
			body = strings.NewReader("data")
		}
		req, _ := http.NewRequest(m, r.url("/"), body)
		if res, got := r.do(req); res.StatusCode != 200 || got != "ok" {
			t.Errorf("%s: %d %q", m, res.StatusCode, got)
		}
		if m == "POST" || m == "GET" {
			time.Sleep(50 * time.Millisecond) // the close has arrived at the gateway
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if fmt.Sprint(served) != fmt.Sprint(methods) {
		t.Errorf("the workload served %v, want %v: each once", served, methods)
	}
}

// TestBrokenResponses: what a workload does wrong becomes a 502, or cuts the
// client's connection where the response had begun. It never looks whole.
func TestBrokenResponses(t *testing.T) {
	for name, tc := range map[string]struct {
		answer string
		status int // 0: the body breaks off
	}{
		"nothing":         {"", 502},
		"not HTTP":        {"SSH-2.0-OpenSSH\r\n", 502},
		"half a head":     {"HTTP/1.1 200 OK\r\nContent-", 502},
		"endless head":    {"HTTP/1.1 200 OK\r\n" + strings.Repeat("X: "+strings.Repeat("y", 1000)+"\r\n", 1000), 502},
		"large head":      {"HTTP/1.1 200 OK\r\n" + strings.Repeat("X: "+strings.Repeat("y", 1000)+"\r\n", 1000) + "Content-Length: 0\r\n\r\n", 502},
		"status 99":       {"HTTP/1.1 099 Odd\r\n\r\n", 502},
		"two lengths":     {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nabcde", 502},
		"101 unasked":     {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", 502},
		"many 1xx":        {strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 50), 502},
		"short body":      {"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nabc", 0},
		"cut chunk":       {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nabc", 0},
		"no last chunk":   {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", 0},
		"until it closes": {"HTTP/1.1 200 OK\r\n\r\nabc", 200},
	} {
		t.Run(name, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			defer wg.Wait()
			defer ln.Close()
			wg.Go(func() {
				for {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					_, _ = http.ReadRequest(bufio.NewReader(c))
					_, _ = io.WriteString(c, tc.answer)
					c.Close()
				}
			})
			r := newRigTo(t, ln.Addr().String())
			res, err := r.client.Get(r.url("/"))
			if err != nil {
				if tc.status == 0 {
					return
				}
				t.Fatal(err)
			}
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			switch {
			case tc.status == 0 && err == nil:
				t.Errorf("a broken body looks whole: %q", body)
			case tc.status != 0 && (res.StatusCode != tc.status || err != nil):
				t.Errorf("got %d %q, %v; want %d", res.StatusCode, body, err, tc.status)
			}
		})
	}
}

// TestSurplusBytes: what a workload sends beyond its response is nobody's.
func TestSurplusBytes(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer ln.Close()
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				in := bufio.NewReader(c)
				for {
					if _, err := http.ReadRequest(in); err != nil {
						return
					}
					fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmine"+
						strings.Repeat("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray", 1000))
				}
			})
		}
	})
	r := newRigTo(t, ln.Addr().String())
	for i := range 5 {
		if _, body := r.get("/"); body != "mine" {
			t.Errorf("request %d was answered with %q", i, body)
		}
	}
	r.table.WithdrawAll(r.peer.ID()) // ends the streams, and the workload's connections
	eventually(t, "the streams end", func() bool { return r.tunnel.Streams() == 0 })
}

// TestClientGone: the workload learns that nobody waits for its answer.
func TestClientGone(t *testing.T) {
	gone := make(chan struct{})
	begun := make(chan struct{})
	r := newRig(t, http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		close(begun)
		<-req.Context().Done()
		close(gone)
	}))
	ctx, cancel := context.WithCancel(context.Background())
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, r.url("/"), nil)
	go func() {
		<-begun
		cancel()
	}()
	if _, err := r.client.Do(req); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	select {
	case <-gone:
	case <-time.After(10 * time.Second):
		t.Error("the workload was not told")
	}
}

// TestUploadCut: a client that goes away within its body must not make the
// workload take the part for the whole.
func TestUploadCut(t *testing.T) {
	result := make(chan error, 1)
	r := newRig(t, http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		_, err := io.Copy(io.Discard, req.Body)
		result <- err
	}))
	for _, head := range []string{"Content-Length: 1000\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"} {
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: %s\r\n%s", r.host, head)
		time.Sleep(50 * time.Millisecond)
		c.Close()
		select {
		case err := <-result:
			if err == nil {
				t.Errorf("%q: the workload saw a whole body", head)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%q: the workload still waits", head)
		}
	}
}

func TestIdleLimits(t *testing.T) {
	release := make(chan struct{})
	r := newRig(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/half" {
			fmt.Fprint(w, "half")
			_ = http.NewResponseController(w).Flush()
		}
		select {
		case <-release:
		case <-req.Context().Done():
		}
	}), func(p *gateway.ProxyConfig, _ *gateway.ServerConfig, _ *publish.Config) {
		p.ResponseTimeout, p.IdleTimeout = time.Second, time.Second
	})
	defer close(release)
	if res, _ := r.get("/silent"); res.StatusCode != http.StatusGatewayTimeout {
		t.Errorf("a silent workload: %d, want 504", res.StatusCode)
	}
	res, err := r.client.Get(r.url("/half"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); err == nil {
		t.Errorf("a response that stopped looks whole: %q", b)
	}
}
