package fetch

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"peercompute/pkg/mesh"
)

func yes() error { return nil }

// site is a web server on this machine.
func site(t *testing.T) (*httptest.Server, string) {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Method", r.Method)
		w.Header().Set("X-Seen", r.Header.Get("X-Sent")+r.Header.Get("Proxy-Authorization")+r.Header.Get("Connection"))
		b := new(bytes.Buffer)
		_, _ = b.ReadFrom(r.Body)
		_, _ = w.Write(b.Bytes())
	})
	mux.HandleFunc("/to", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, r.URL.Query().Get("url"), http.StatusFound)
	})
	mux.HandleFunc("/big", func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(make([]byte, 2000)) })
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	u, _ := url.Parse(s.URL)
	return s, u.Host
}

func TestOnlyWhatIsListed(t *testing.T) {
	s, host := site(t)
	other, otherHost := site(t)
	looked := atomic.Int64{}
	c := New(Config{
		Hosts: []string{host, "inside.example:" + strings.Split(host, ":")[1], "rebound.example:80"}, Allow: yes,
		Resolve: func(_ context.Context, name string) ([]netip.Addr, error) {
			looked.Add(1)
			if name == "rebound.example" && looked.Load()%2 == 0 { // public when asked first, private after
				return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
			}
			return []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1"), netip.MustParseAddr("169.254.169.254"), netip.MustParseAddr("::ffff:10.0.0.1")}, nil
		},
	})
	defer c.Close()
	for _, tc := range []struct {
		name, url string
		kind      mesh.Kind // None = it works
	}{
		{"an address that is listed", s.URL + "/echo", mesh.None},
		{"another port", other.URL + "/echo", mesh.Denied},
		{"a name that means this machine", "http://inside.example:" + strings.Split(host, ":")[1] + "/echo", mesh.Denied},
		{"a name that is not listed", "http://example.org/", mesh.Denied},
		{"the same machine by name", "http://localhost:" + strings.Split(host, ":")[1] + "/echo", mesh.Denied},
		{"the same address otherwise written", "http://127.1:" + strings.Split(host, ":")[1] + "/echo", mesh.Invalid},
		{"the same address in IPv6", "http://[::ffff:127.0.0.1]:" + strings.Split(host, ":")[1] + "/echo", mesh.None},
		{"a redirect within the list", s.URL + "/to?url=/echo", mesh.None},
		{"a redirect out of it", s.URL + "/to?url=" + url.QueryEscape("http://"+otherHost+"/echo"), mesh.Denied},
		{"a redirect to a file", s.URL + "/to?url=" + url.QueryEscape("file:///etc/passwd"), mesh.Invalid},
		{"a redirect to a name that means this machine", s.URL + "/to?url=" + url.QueryEscape("http://rebound.example/"), mesh.Denied},
		{"a file", "file:///etc/passwd", mesh.Invalid},
		{"a user in the URL", "http://user:secret@" + host + "/echo", mesh.Invalid},
		{"nothing", "", mesh.Invalid},
		{"another scheme", "gopher://" + host + "/", mesh.Invalid},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, err := c.Do(t.Context(), Request{Method: "GET", URL: tc.url, Max: 1000})
			if mesh.KindOf(err) != tc.kind || err == nil && a.Status != 200 {
				t.Errorf("got %d, %v; want %v", a.Status, err, tc.kind)
			}
			if err != nil && strings.Contains(mesh.AsError(err).Msg, "secret") {
				t.Error("the message holds the password")
			}
		})
	}
}

// The address that is judged is the one that is connected to.
func TestNamesThatMoveGainNothing(t *testing.T) {
	_, host := site(t)
	name := "moving.example:" + strings.Split(host, ":")[1]
	asked := 0
	c := New(Config{Hosts: []string{name}, Allow: yes, Resolve: func(context.Context, string) ([]netip.Addr, error) {
		asked++
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	}})
	defer c.Close()
	for range 3 {
		if _, err := c.Do(t.Context(), Request{Method: "GET", URL: "http://" + name + "/echo", Max: 10}); mesh.KindOf(err) != mesh.Denied {
			t.Errorf("got %v", err)
		}
	}
	if asked != 3 {
		t.Errorf("looked up %d times", asked)
	}
}

func TestRedirectsEnd(t *testing.T) {
	var hops atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hops.Add(1)
		http.Redirect(w, r, "/again", http.StatusFound)
	}))
	defer s.Close()
	u, _ := url.Parse(s.URL)
	c := New(Config{Hosts: []string{u.Host}, Allow: yes})
	defer c.Close()
	if _, err := c.Do(t.Context(), Request{Method: "GET", URL: s.URL, Max: 10}); mesh.KindOf(err) != mesh.Invalid || hops.Load() != maxHops {
		t.Errorf("%v after %d hops", err, hops.Load())
	}
}

func TestBounds(t *testing.T) {
	s, host := site(t)
	allowed := true
	c := New(Config{Hosts: []string{host}, Allow: func() error {
		if !allowed {
			return errors.New("withdrawn")
		}
		return nil
	}})
	defer c.Close()
	many := http.Header{}
	for range MaxFields + 1 {
		many.Add("X-A", "b")
	}
	for name, tc := range map[string]struct {
		r    Request
		kind mesh.Kind
	}{
		"a large answer": {Request{Method: "GET", URL: s.URL + "/big", Max: 1999}, mesh.TooLarge},
		"no room":        {Request{Method: "GET", URL: s.URL + "/big"}, mesh.TooLarge},
		"a large body":   {Request{Method: "POST", URL: s.URL + "/echo", Body: make([]byte, MaxBody+1), Max: 10}, mesh.TooLarge},
		"many fields":    {Request{Method: "GET", URL: s.URL + "/echo", Header: many, Max: 10}, mesh.TooLarge},
		"a method":       {Request{Method: "CONNECT", URL: s.URL + "/echo", Max: 10}, mesh.Invalid},
		"a bad header":   {Request{Method: "GET", URL: s.URL + "/echo", Header: http.Header{"A\nB": {"c"}}, Max: 10}, mesh.Unavailable},
	} {
		if _, err := c.Do(t.Context(), tc.r); mesh.KindOf(err) != tc.kind {
			t.Errorf("%s: got %v, want %v", name, err, tc.kind)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Do(ctx, Request{Method: "GET", URL: s.URL + "/slow", Max: 10}); mesh.KindOf(err) != mesh.Timeout {
		t.Errorf("no answer: %v", err)
	}
	a, err := c.Do(t.Context(), Request{Method: "POST", URL: s.URL + "/echo", Body: []byte("hi"), Max: 10, Header: http.Header{"X-Sent": {"s"}, "Proxy-Authorization": {"p"}, "Connection": {"c"}}})
	if err != nil || string(a.Body) != "hi" || a.Header.Get("X-Method") != "POST" || a.Header.Get("X-Seen") != "s" {
		t.Errorf("%+v, %v", a, err)
	}
	allowed = false
	if _, err := c.Do(t.Context(), Request{Method: "GET", URL: s.URL + "/echo", Max: 10}); err == nil {
		t.Error("what was withdrawn still works")
	}
	if _, err := New(Config{Hosts: []string{host}}).Do(t.Context(), Request{Method: "GET", URL: s.URL + "/echo", Max: 10}); mesh.KindOf(err) != mesh.Denied {
		t.Errorf("nobody allowed it: %v", err)
	}
}

func TestOverTheWire(t *testing.T) {
	s, host := site(t)
	c := New(Config{Hosts: []string{host}, Allow: yes})
	defer c.Close()
	ours, theirs := net.Pipe()
	served := make(chan struct{})
	go func() { Serve(t.Context(), ours, c); close(served) }()
	r := NewRemote(theirs)
	var wg sync.WaitGroup
	for i := range 20 { // more than are made at once
		wg.Go(func() {
			body := bytes.Repeat([]byte{byte(i)}, 100_000)
			a, err := r.Do(t.Context(), Request{Method: "POST", URL: s.URL + "/echo", Body: body, Max: 1 << 20})
			if err != nil || !bytes.Equal(a.Body, body) {
				t.Errorf("%v, %d bytes", err, len(a.Body))
			}
		})
	}
	wg.Wait()
	if _, err := r.Do(t.Context(), Request{Method: "GET", URL: "http://example.org/", Max: 10}); mesh.KindOf(err) != mesh.Denied || !strings.Contains(err.Error(), "example.org:80") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := r.Do(ctx, Request{Method: "GET", URL: s.URL + "/slow", Max: 10}); err == nil {
		t.Error("it waits for ever")
	}
	r.Close()
	<-served
	if _, err := r.Do(t.Context(), Request{Method: "GET", URL: s.URL + "/echo", Max: 10}); mesh.KindOf(err) != mesh.Unavailable {
		t.Errorf("after the end: %v", err)
	}
}

func FuzzRead(f *testing.F) {
	var b bytes.Buffer
	_ = message{7, []byte("{}"), []byte("body")}.write(&b)
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := read(bytes.NewReader(b), MaxBody)
		if err != nil {
			return
		}
		var again bytes.Buffer
		if err := m.write(&again); err != nil || !bytes.Equal(again.Bytes(), b[:again.Len()]) {
			t.Errorf("%v, or not what was read", err)
		}
	})
}
