package wasm

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"peercompute/pkg/mesh"
)

const helloGuest = "peercompute/examples/hello-wasm"

// client speaks HTTP to a service.
func (t *task) client() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return t.Dial(ctx) },
		DisableKeepAlives: true,
	}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func get(t *testing.T, c *http.Client, url string) (*http.Response, string) {
	t.Helper()
	res, err := c.Get(url)
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

func TestServiceAnswers(t *testing.T) {
	r := newGoRig(t, Limits{})
	task := r.start(r.workload(r.shelf.put(guests.build(t, helloGuest)), mesh.HTTP, func(s *mesh.Spec) {
		s.Env = []string{"GREETING=hello", "HTTP_HOST=forged"}
	}))
	c := task.client()
	t.Run("page", func(t *testing.T) {
		res, body := get(t, c, "http://app.example/")
		if res.StatusCode != 200 || !strings.Contains(body, "Hello from a peer") || !strings.Contains(body, "app.example") {
			t.Errorf("got %d %q", res.StatusCode, body)
		}
	})
	t.Run("environment", func(t *testing.T) {
		_, body := get(t, c, "http://app.example/env?a=b")
		for _, want := range []string{"GREETING=hello\n", "HTTP_HOST=app.example\n", "QUERY_STRING=a=b\n", "PATH_INFO=/env\n"} {
			if !strings.Contains(body, want) {
				t.Errorf("no %q in\n%s", want, body)
			}
		}
		if strings.Contains(body, "PATH=/") || strings.Contains(body, "HOME=") {
			t.Errorf("the environment of peerd shows:\n%s", body)
		}
	})
	t.Run("status", func(t *testing.T) {
		if res, _ := get(t, c, "http://app.example/status?code=418"); res.StatusCode != 418 {
			t.Errorf("got %d", res.StatusCode)
		}
	})
	t.Run("echo", func(t *testing.T) {
		want := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
		res, err := c.Post("http://app.example/echo", "application/octet-stream", bytes.NewReader(want))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		got, err := io.ReadAll(res.Body)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("got %d bytes, %v; want %d", len(got), err, len(want))
		}
	})
	if err := task.Stop(t.Context(), time.Second); err != nil {
		t.Fatal(err)
	}
	exit, err := task.Wait(t.Context())
	if err != nil || exit.Kind != mesh.Canceled {
		t.Errorf("got %+v, %v", exit, err)
	}
	if _, err := task.Dial(t.Context()); mesh.KindOf(err) != mesh.Unavailable {
		t.Errorf("dialled a stopped service: %v", err)
	}
}
