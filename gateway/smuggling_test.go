package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

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
	const evil = "GET /evil HTTP/1.1\r\nHost: HOST\r\n\r\n"
	const evilLength = "Content-Length: LENGTH\r\n\r\n"
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
			// A gateway of its own: a request that is refused after it has begun may
			// reach the workload when the refusal has been read already.
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
			length := len(strings.ReplaceAll(evil, "HOST", r.host))
			got := r.raw(strings.ReplaceAll(tc.request, "LENGTH", fmt.Sprint(length)))
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
