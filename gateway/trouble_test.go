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
	"strings"
	"sync"
	"testing"
	"time"

	"peercompute/gateway"
	"peercompute/pkg/publish"
)

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
	for i := range 20 { // the answer may come before the first look at the body, and after
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
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

// TestStaleStream: the workload closes a kept connection behind the gateway's
// back. A request that can be repeated is, and one that cannot gets a new stream.
func TestStaleStream(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var served []string
	closed := make(chan struct{}, 10)
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
				defer func() { c.Close(); closed <- struct{}{} }()
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
			<-closed
			time.Sleep(50 * time.Millisecond) // it has arrived at the gateway
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
	result, begun := make(chan error, 1), make(chan struct{})
	r := newRig(t, http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		begun <- struct{}{}
		_, err := io.Copy(io.Discard, req.Body)
		result <- err
	}))
	for _, head := range []string{"Content-Length: 1000\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"} {
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: %s\r\n%s", r.host, head)
		<-begun
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
