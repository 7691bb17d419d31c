package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

func get(t *testing.T, url string) (*http.Response, string) {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

func TestRoutes(t *testing.T) {
	srv := httptest.NewServer(routes("box"))
	defer srv.Close()

	if _, body := get(t, srv.URL+"/a/b?c=d"); body != "hello from box: GET /a/b?c=d\n" {
		t.Errorf("/: got %q", body)
	}
	if res, _ := get(t, srv.URL+"/download?bytes=-1"); res.StatusCode != http.StatusBadRequest {
		t.Errorf("negative download: got %s", res.Status)
	}
	if _, body := get(t, srv.URL+"/download?bytes=100001"); len(body) != 100001 {
		t.Errorf("download: got %d bytes", len(body))
	}
	if _, body := get(t, srv.URL+"/events?n=2"); body != "id: 0\ndata: tick 0\n\nid: 1\ndata: tick 1\n\n" {
		t.Errorf("events: got %q", body)
	}
	res, body := get(t, srv.URL+"/trailers")
	sum := sha256.Sum256([]byte(body))
	if res.Trailer.Get("X-Checksum") != hex.EncodeToString(sum[:]) || res.Trailer.Get("X-Unannounced") != "yes" {
		t.Errorf("trailers: got %v", res.Trailer)
	}
}

func TestUploadCountsAndHashes(t *testing.T) {
	srv := httptest.NewServer(routes("box"))
	defer srv.Close()
	data := bytes.Repeat([]byte("peer"), 1<<18)
	res, err := http.Post(srv.URL+"/upload", "application/octet-stream", bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var got struct {
		Bytes  int
		SHA256 string
	}
	if err := json.NewDecoder(res.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	if got.Bytes != len(data) || got.SHA256 != hex.EncodeToString(sum[:]) {
		t.Errorf("got %+v", got)
	}
}

func TestExchangeReadsThenStreams(t *testing.T) {
	srv := httptest.NewServer(routes("box"))
	defer srv.Close()
	res, err := http.Post(srv.URL+"/exchange?bytes=100001", "application/octet-stream", bytes.NewReader(make([]byte, 1<<20)))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); err != nil || len(b) != 100001 {
		t.Errorf("got %d bytes, %v", len(b), err)
	}
}

func TestWebSocketEchoes(t *testing.T) {
	srv := httptest.NewServer(routes("box"))
	defer srv.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(srv.URL, "http")+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	c.SetReadLimit(maxFrame)
	for _, size := range []int{0, 5, 126, 70_000} {
		want := bytes.Repeat([]byte("x"), size)
		if err := c.Write(ctx, websocket.MessageBinary, want); err != nil {
			t.Fatal(err)
		}
		kind, got, err := c.Read(ctx)
		if err != nil || kind != websocket.MessageBinary || !bytes.Equal(got, want) {
			t.Errorf("echo of %d bytes: kind %v, %d bytes, %v", size, kind, len(got), err)
		}
	}
	if err := c.Close(websocket.StatusNormalClosure, "done"); err != nil {
		t.Errorf("closing handshake: %v", err)
	}
}

func TestRunStopsPolitely(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := run(ctx, "127.0.0.1:0", "box"); err != nil {
		t.Errorf("got %v", err)
	}
}
