package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
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
	if n := r.dials.Load(); n != 1 {
		t.Errorf("%d connections to the workload, want 1", n)
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
