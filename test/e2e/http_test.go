package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"peercompute/test/internal/testmesh"
)

// Whatever HTTP can do survives the way through gateway, tunnel and peer into a
// real container.
func TestContainerSpeaksAllOfHTTP(t *testing.T) {
	t.Parallel()
	image := container(t)
	m := testmesh.New(t)
	alice, _, gw := m.Trio()
	web := m.Web(gw)
	w := deploy(t, alice, image, "--peer", "bob", "--name", "box", "--port", "8080", "--publish", "--", "--name", "box")

	t.Run("redirect", func(t *testing.T) {
		res, _ := get(t, web, w.URL+"/a/../healthz?x=1")
		if to := res.Header.Get("Location"); res.StatusCode/100 != 3 || !strings.HasSuffix(to, "/healthz?x=1") {
			t.Errorf("got %s to %q", res.Status, to)
		}
	})
	t.Run("trailers", func(t *testing.T) {
		res, body := get(t, web, w.URL+"/trailers")
		sum := sha256.Sum256([]byte(body))
		if res.Trailer.Get("X-Checksum") != hex.EncodeToString(sum[:]) || res.Trailer.Get("X-Unannounced") != "yes" {
			t.Errorf("got %v", res.Trailer)
		}
	})
	t.Run("events", func(t *testing.T) { events(t, web, w.URL) })
	t.Run("websocket", func(t *testing.T) { sockets(t, web, w.URL) })
	t.Run("chunked upload", func(t *testing.T) {
		data := repeat("chunk by chunk ", 3<<20)
		_, body := do(t, web, http.MethodPost, w.URL+"/upload", io.MultiReader(bytes.NewReader(data))) // no length known
		if want := fmt.Sprintf(`"bytes":%d`, len(data)); !strings.Contains(body, want) {
			t.Errorf("got %s", body)
		}
	})
	t.Run("HEAD", func(t *testing.T) {
		res, body := do(t, web, http.MethodHead, w.URL+"/download?bytes=5", nil)
		if res.ContentLength != 5 || body != "" {
			t.Errorf("got %d and %q", res.ContentLength, body)
		}
	})
	t.Run("no content", func(t *testing.T) {
		if res, body := get(t, web, w.URL+"/healthz"); res.StatusCode != http.StatusNoContent || body != "" {
			t.Errorf("got %s %q", res.Status, body)
		}
	})
	t.Run("one connection after another", func(t *testing.T) {
		for i := range 20 {
			if _, body := get(t, web, fmt.Sprintf("%s/%d", w.URL, i)); body != fmt.Sprintf("hello from box: GET /%d\n", i) {
				t.Fatalf("request %d: got %q", i, body)
			}
		}
	})
}

// events must come one by one, not all at the end, which is a minute away.
func events(t *testing.T, web *http.Client, url string) {
	began := time.Now()
	res, err := web.Get(url + "/events?n=600")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if kind := res.Header.Get("Content-Type"); kind != "text/event-stream" {
		t.Errorf("content type %q", kind)
	}
	got := 0
	for lines := bufio.NewScanner(res.Body); got < 4 && lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "data: ") {
			got++
		}
	}
	if took := time.Since(began); got != 4 || took > 55*time.Second {
		t.Errorf("%d events within %s", got, took)
	}
}

func sockets(t *testing.T, web *http.Client, url string) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	plain := *web
	plain.Timeout = 0 // of the whole exchange; a socket has none
	c, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(url, "http")+"/ws", &websocket.DialOptions{HTTPClient: &plain})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	c.SetReadLimit(1 << 20)
	for _, size := range []int{0, 5, 126, 70_000, 500_000} {
		want := repeat("wave", size)
		if err := c.Write(ctx, websocket.MessageBinary, want); err != nil {
			t.Fatal(err)
		}
		kind, got, err := c.Read(ctx)
		if err != nil || kind != websocket.MessageBinary || !bytes.Equal(got, want) {
			t.Fatalf("echo of %d bytes: kind %v, %d bytes, %v", size, kind, len(got), err)
		}
	}
	if err := c.Close(websocket.StatusNormalClosure, "done"); err != nil {
		t.Errorf("the closing handshake: %v", err)
	}
}

// A guest sees the request as the client made it, and the client every header
// that the guest sent.
func TestGuestSeesTheRequest(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	alice, _, gw := m.Trio()
	web := m.Web(gw)
	w := deploy(t, alice, testmesh.Wasm(t, "hello-wasm"), "--peer", "bob", "--publish")
	req, err := http.NewRequest(http.MethodGet, w.URL+"/env", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header["X-Twice"] = []string{"one", "two"}
	req.Header.Set("X-Forwarded-For", "203.0.113.9") // a lie
	res, err := web.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	env := string(data)
	if !strings.Contains(env, "HTTP_X_TWICE=one, two\n") {
		t.Errorf("a repeated header did not arrive:\n%s", env)
	}
	if strings.Contains(env, "203.0.113.9") || !strings.Contains(env, "HTTP_X_FORWARDED_FOR=127.0.0.1\n") {
		t.Errorf("the client could choose its own address:\n%s", env)
	}
	body := repeat("through a guest and back ", 8<<20)
	if _, got := do(t, web, http.MethodPost, w.URL+"/echo", bytes.NewReader(body)); got != string(body) {
		t.Errorf("echo returned %d of %d bytes", len(got), len(body))
	}
	if res, _ := get(t, web, w.URL+"/status?code=503"); res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("got %s", res.Status)
	}
}

func TestUnknownNames(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	gw := m.Gateway("gw")
	web := m.Web(gw)
	res, body := get(t, web, "http://nobody-aaaaaaaaaa.localhost/")
	if res.StatusCode != http.StatusNotFound || !strings.Contains(body, "peerctl ps") {
		t.Errorf("an unknown name: %s %q", res.Status, body)
	}
	req, err := http.NewRequest(http.MethodGet, "http://nobody-aaaaaaaaaa.localhost/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/html")
	page, err := web.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	page.Body.Close()
	if kind := page.Header.Get("Content-Type"); !strings.HasPrefix(kind, "text/html") {
		t.Errorf("a browser gets %q", kind)
	}
	if res, _ := get(t, web, "http://example.org/"); res.StatusCode != http.StatusNotFound {
		t.Errorf("a foreign host: %s", res.Status)
	}
	if res, _ := get(t, web, "http://localhost/"); res.StatusCode != http.StatusOK {
		t.Errorf("the gateway's own page: %s", res.Status)
	}
}

// A gateway with limits answers 429 to the one who overdoes it.
func TestRateLimits(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	gw := m.Gateway("gw", "--rate-ip", "5")
	web := m.Web(gw)
	codes := map[int]int{}
	began := time.Now()
	for range 40 {
		res, _ := get(t, web, "http://nobody-aaaaaaaaaa.localhost/")
		codes[res.StatusCode]++
		if res.StatusCode == http.StatusTooManyRequests && res.Header.Get("Retry-After") == "" {
			t.Error("429 without Retry-After")
		}
	}
	if most := 11 + int(5*time.Since(began).Seconds()); codes[http.StatusNotFound] < 10 || codes[http.StatusNotFound] > most || codes[http.StatusNotFound]+codes[http.StatusTooManyRequests] != 40 {
		t.Errorf("got %v of 40 requests, want a burst of 10 and then 5 a second: at most %d", codes, most)
	}
}

// Eight posts of 4 MiB with replies of 1 MiB, all at once, come to their end,
// however small the buffers between.
func TestParallelPostsFinish(t *testing.T) {
	t.Parallel()
	image := container(t)
	m := testmesh.New(t)
	alice, _, gw := m.Trio()
	web := m.Web(gw)
	w := deploy(t, alice, image, "--peer", "bob", "--name", "box", "--port", "8080", "--publish")
	data := repeat("posted", 4<<20)
	post := func(path string) (int64, error) {
		res, err := web.Post(w.URL+path, "application/octet-stream", bytes.NewReader(data))
		if err != nil {
			return 0, err
		}
		defer res.Body.Close()
		return io.Copy(io.Discard, res.Body)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if n, err := post("/exchange?bytes=1048576"); n != 1<<20 || err != nil {
				t.Errorf("got %d bytes, %v", n, err)
			}
		})
	}
	wg.Wait()
	// A workload that answers while the body still travels, and never reads it. What
	// it answers is small: its own server ends the connection soon after.
	for range 4 {
		if n, err := post("/download?bytes=5000"); n != 5000 || err != nil {
			t.Errorf("an early answer: got %d bytes, %v", n, err)
		}
	}
}

// A connection to the gateway that says nothing, or half a request, keeps nobody else waiting.
func TestSilentClients(t *testing.T) {
	t.Parallel()
	m := testmesh.New(t)
	gw := m.Gateway("gw")
	for i := range 200 {
		c, err := net.Dial("tcp", gw.Public)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if i%2 == 0 {
			fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: loc")
		}
	}
	start := time.Now()
	get(t, m.Web(gw), "http://localhost/")
	if took := time.Since(start); took > 8*time.Second { // a silent one is cut after 10
		t.Errorf("a good request took %s", took)
	}
}
