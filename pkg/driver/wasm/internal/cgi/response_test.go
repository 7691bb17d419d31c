package cgi

import (
	"bytes"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestResponse(t *testing.T) {
	big := "X-A: " + strings.Repeat("b", MaxHead) + "\r\n\r\n"
	for _, tc := range []struct {
		name, in string
		status   int // 0 = malformed
		header   http.Header
		body     string
	}{
		{name: "plain", in: "Content-Type: text/plain\r\n\r\nhello\r\n\r\n", status: 200, header: http.Header{"Content-Type": {"text/plain"}}, body: "hello\r\n\r\n"},
		{name: "bare line feeds", in: "Content-Type: a/b\n\nhello", status: 200, header: http.Header{"Content-Type": {"a/b"}}, body: "hello"},
		{name: "mixed line ends", in: "Content-Type: a/b\r\n\nhello", status: 200, header: http.Header{"Content-Type": {"a/b"}}, body: "hello"},
		{name: "status", in: "Status: 404 Not Found\r\nContent-Type: a/b\r\n\r\n", status: 404, header: http.Header{"Content-Type": {"a/b"}}},
		{name: "status alone", in: "Status: 204\r\n\r\n", status: 204, header: http.Header{"Content-Type": nil}},
		{name: "location", in: "Location: https://other/\r\n\r\n", status: 302, header: http.Header{"Location": {"https://other/"}, "Content-Type": nil}},
		{name: "location and status", in: "Location: /here\r\nStatus: 307 Go\r\n\r\n", status: 307, header: http.Header{"Location": {"/here"}, "Content-Type": nil}},
		{name: "repeated", in: "Content-Type: a/b\r\nset-cookie: a\r\nSet-Cookie: b\r\n\r\n", status: 200, header: http.Header{"Content-Type": {"a/b"}, "Set-Cookie": {"a", "b"}}},
		{name: "about the connection", in: "Content-Type: a/b\r\nConnection: upgrade\r\nTransfer-Encoding: chunked\r\nUpgrade: x\r\n\r\n", status: 200, header: http.Header{"Content-Type": {"a/b"}}},
		{name: "empty line first", in: "\r\n\r\nhello"},
		{name: "no type", in: "X-A: b\r\n\r\nhello"},
		{name: "no end", in: "Content-Type: a/b\r\n"},
		{name: "nothing", in: ""},
		{name: "not a field", in: "hello\r\n\r\n"},
		{name: "a space before the colon", in: "Content-Type : a/b\r\n\r\n"},
		{name: "a folded line", in: "Content-Type: a/b\r\n X: y\r\n\r\n"},
		{name: "a NUL", in: "Content-Type: a\x00b\r\n\r\n"},
		{name: "a bare CR", in: "Content-Type: a\rX: b\r\n\r\n"},
		{name: "status 100", in: "Status: 100\r\n\r\n"},
		{name: "status +200", in: "Status: +20\r\n\r\n"},
		{name: "status 2000", in: "Status: 2000\r\n\r\n"},
		{name: "two lengths", in: "Content-Type: a/b\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na"},
		{name: "negative length", in: "Content-Type: a/b\r\nContent-Length: -1\r\n\r\na"},
		{name: "over the cap", in: big},
		{name: "too many fields", in: strings.Repeat("A: b\r\n", MaxFields+1) + "\r\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, size := range []int{1, 3, 1 << 20} {
				status, header, body, err := answer(tc.in, size)
				if tc.status == 0 {
					if !errors.Is(err, ErrMalformed) {
						t.Errorf("in parts of %d: got %d, %v; want malformed", size, status, err)
					}
					continue
				}
				if err != nil || status != tc.status || body != tc.body || !maps.EqualFunc(header, tc.header, slices.Equal) {
					t.Errorf("in parts of %d: got %d %v %q, %v; want %d %v %q", size, status, header, body, err, tc.status, tc.header, tc.body)
				}
			}
		})
	}
}

// answer passes what a program wrote, in parts of this size.
func answer(in string, size int) (status int, header http.Header, body string, err error) {
	w := httptest.NewRecorder()
	r := NewResponse(w)
	for rest := []byte(in); len(rest) > 0; {
		n := min(size, len(rest))
		if _, err := r.Write(rest[:n]); err != nil {
			return 0, nil, "", errors.Join(err, r.Finish())
		}
		rest = rest[n:]
	}
	err = r.Finish()
	return w.Code, w.Header(), w.Body.String(), err
}

func TestResponseIsLive(t *testing.T) {
	flushed := make(chan struct{}, 16)
	w := &flushRecorder{ResponseRecorder: httptest.NewRecorder(), flushed: flushed}
	r := NewResponse(w)
	if _, err := r.Write([]byte("Content-Type: a/b\r\n\r\nfirst")); err != nil {
		t.Fatal(err)
	}
	select {
	case <-flushed:
	case <-time.After(5 * time.Second):
		t.Fatal("what was written waits for more")
	}
	if err := r.Finish(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Write([]byte("late")); err == nil {
		t.Error("a write after the end reached the client")
	}
}

type flushRecorder struct {
	*httptest.ResponseRecorder
	flushed chan struct{}
}

func (f *flushRecorder) Flush() { f.flushed <- struct{}{} }

func FuzzResponse(f *testing.F) {
	f.Add([]byte("Content-Type: text/plain\r\n\r\nhello"), 1)
	f.Add([]byte("Status: 404 Not Found\nLocation: /\n\n"), 7)
	f.Add([]byte("A: b\r\nContent-Length: 3\r\nStatus: 200\r\n\r\nabc"), 2)
	f.Fuzz(func(t *testing.T, in []byte, size int) {
		if size < 1 {
			size = 1
		}
		s1, h1, b1, err1 := answer(string(in), size)
		s2, h2, b2, err2 := answer(string(in), len(in)+1)
		if (err1 == nil) != (err2 == nil) {
			t.Fatalf("in parts: %v, whole: %v", err1, err2)
		}
		if err1 != nil {
			return
		}
		if s1 != s2 || b1 != b2 || !maps.EqualFunc(h1, h2, slices.Equal) {
			t.Fatalf("in parts %d %v %q, whole %d %v %q", s1, h1, b1, s2, h2, b2)
		}
		if s1 < 200 || s1 > 599 {
			t.Fatalf("status %d", s1)
		}
		if !bytes.HasSuffix(in, []byte(b1)) {
			t.Fatalf("body %q is not the end of %q", b1, in)
		}
		for k, v := range h1 {
			if strings.ContainsAny(k+strings.Join(v, ""), "\r\n\x00") {
				t.Fatalf("header %q: %q", k, v)
			}
		}
	})
}
