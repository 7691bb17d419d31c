package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func serve(t *testing.T, h http.HandlerFunc) target {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return target{strings.TrimPrefix(srv.URL, "http://"), "name.localhost"}
}

func TestClientReadsBodies(t *testing.T) {
	for _, c := range []struct {
		name string
		size int
		long bool // longer than the server buffers: chunked
	}{{"empty", 0, false}, {"small", 100, false}, {"large", 1 << 20, false}, {"chunked", 300_000, true}} {
		t.Run(c.name, func(t *testing.T) {
			at := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Host != "name.localhost" {
					t.Errorf("got host %q", r.Host)
				}
				if !c.long {
					w.Header().Set("Content-Length", fmt.Sprint(c.size))
				}
				io.WriteString(w, strings.Repeat("x", c.size))
			})
			cl, err := dial(t.Context(), at, "/")
			if err != nil {
				t.Fatal(err)
			}
			defer cl.close()
			for range 3 { // on one connection
				if got, err := cl.get(); err != nil || got != int64(c.size) {
					t.Fatalf("got %d bytes, %v", got, err)
				}
			}
		})
	}
}

func TestClientRefusesOtherAnswers(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"an error": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) },
		"a short one": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "10")
			w.Write([]byte("x"))
		},
	} {
		cl, err := dial(t.Context(), serve(t, h), "/")
		if err != nil {
			t.Fatal(err)
		}
		if n, err := cl.get(); err == nil {
			t.Errorf("%s counts as an answer of %d bytes", name, n)
		}
		cl.close()
	}
}

func TestGenerateCounts(t *testing.T) {
	at := serve(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "0123456789") })
	got, err := generateHere(t.Context(), at, "/", 4, 100*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if got.requests < 4 || got.bytes != int64(got.requests)*10 || got.elapsed < 100*time.Millisecond {
		t.Errorf("got %+v", got)
	}
	if got.p50 <= 0 || got.p99 < got.p50 {
		t.Errorf("got p50 %s, p99 %s", got.p50, got.p99)
	}
}

func TestParseWrk(t *testing.T) {
	const good = `Running 2s test @ http://127.0.0.1:21007/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     6.11ms    4.48ms  51.92ms   79.64%
    Req/Sec    11.31k     1.02k   13.25k    70.00%
  Latency Distribution
     50%    5.09ms
     75%    7.97ms
     90%   11.78ms
     99%  812.50us
  22529 requests in 2.01s, 4.64MB read
Requests/sec:  11206.61
Transfer/sec:      2.31MB
`
	got, err := parseWrk(good)
	if err != nil {
		t.Fatal(err)
	}
	want := sample{requests: 22529, bytes: 4_865_392, elapsed: 2010 * time.Millisecond, p50: 5090 * time.Microsecond, p99: 812500 * time.Nanosecond}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for _, bad := range []string{
		"", good + "  Socket errors: connect 0, read 3, write 0, timeout 0\n", good + "  Non-2xx or 3xx responses: 12\n",
		strings.ReplaceAll(good, "2.01s", "0.00s"), strings.ReplaceAll(good, "50%", "5x%"),
	} {
		if got, err := parseWrk(bad); err == nil {
			t.Errorf("understood as %+v:\n%s", got, bad)
		}
	}
}
