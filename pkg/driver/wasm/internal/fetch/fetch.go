// Package fetch makes HTTP requests for guests. A worker has no sockets: it sends a
// request over a connection that stands for one run and its list of hosts, and
// peerd makes it. Who holds no such connection can ask for nothing, and what is on
// the list is peerd's to know.
package fetch

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"peercompute/pkg/egress"
	"peercompute/pkg/mesh"
)

// Bounds of one request.
const (
	MaxBody     = 1 << 20 // bytes of a request's body
	MaxAnswer   = 4 << 20 // bytes of an answer's body
	MaxHead     = 64 << 10
	MaxFields   = 64
	MaxTime     = 30 * time.Second
	maxHops     = 5
	maxAtOnce   = 8
	dialTimeout = 10 * time.Second
)

// Request is what a guest asks for.
type Request struct {
	Method string      `json:"method"`
	URL    string      `json:"url"`
	Header http.Header `json:"header,omitempty"`
	Max    int64       `json:"max"` // bytes of the answer's body that it has room for
	Body   []byte      `json:"-"`
}

// Answer is what came of it.
type Answer struct {
	Status int         `json:"status"`
	Header http.Header `json:"header,omitempty"`
	Body   []byte      `json:"-"`
}

// Config is what New needs.
type Config struct {
	Hosts []string     // HOST:PORT; all that may be reached
	Allow func() error // asked before each request; nil denies
	// The rest is for tests.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error) // nil = the system's resolver
	TLS     *tls.Config
}

// Client makes requests within one list of hosts.
type Client struct {
	cfg   Config
	hosts map[mesh.Host]bool
	out   egress.Dialer
	http  *http.Client
}

// New makes a client. An entry that cannot be read allows nothing.
func New(c Config) *Client {
	f := &Client{cfg: c, hosts: map[mesh.Host]bool{}, out: egress.Dialer{Resolve: c.Resolve}}
	for _, s := range c.Hosts {
		if h, err := mesh.ParseHost(s); err == nil {
			f.hosts[h] = true
		}
	}
	f.http = &http.Client{
		Transport: &http.Transport{
			Proxy:       nil, // the environment of peerd is none of the guest's business
			DialContext: f.dial, TLSClientConfig: c.TLS, ForceAttemptHTTP2: true,
			TLSHandshakeTimeout: dialTimeout, ResponseHeaderTimeout: MaxTime, MaxResponseHeaderBytes: MaxHead,
			MaxConnsPerHost: maxAtOnce, MaxIdleConnsPerHost: 2, IdleConnTimeout: 30 * time.Second,
		},
		CheckRedirect: f.hop,
	}
	return f
}

// Close ends what is kept for the next request.
func (f *Client) Close() { f.http.CloseIdleConnections() }

func denied(format string, args ...any) *mesh.Error {
	return mesh.Errorf(mesh.Denied, format, args...).WithRule("spec.hosts")
}

// check judges a URL by the list.
func (f *Client) check(u *url.URL) error {
	port := u.Port()
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return mesh.Errorf(mesh.Invalid, "%q is not an http or https URL", clip(u.Redacted()))
	case u.User != nil:
		return mesh.Errorf(mesh.Invalid, "a URL with a user in it; send an Authorization header")
	case port == "" && u.Scheme == "http":
		port = "80"
	case port == "":
		port = "443"
	}
	h, err := mesh.ParseHost(net.JoinHostPort(strings.TrimSuffix(u.Hostname(), "."), port))
	if err != nil {
		return mesh.Errorf(mesh.Invalid, "%q has no host that can be reached", clip(u.Redacted()))
	}
	if !f.hosts[h] {
		return denied("%s is not on this workload's list of hosts", h).WithHint("deploy it with: --allow-host %s", h)
	}
	return nil
}

// hop judges each step of a redirect as if it had been asked for.
func (f *Client) hop(r *http.Request, via []*http.Request) error {
	switch {
	case len(via) >= maxHops:
		return mesh.Errorf(mesh.Invalid, "over %d redirects", maxHops)
	case via[len(via)-1].URL.Scheme == "https" && r.URL.Scheme != "https":
		return denied("a redirect from https to %s", r.URL.Scheme)
	}
	return f.check(r.URL)
}

// dial connects to a host of the list, and to no other.
func (f *Client) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	h, err := mesh.ParseHost(addr)
	if err != nil || !f.hosts[h] {
		return nil, denied("%s is not on this workload's list of hosts", clip(addr))
	}
	return f.out.Dial(ctx, network, h)
}

// Do makes a request. Its errors can be shown to the guest.
func (f *Client) Do(ctx context.Context, r Request) (Answer, error) {
	if f.cfg.Allow == nil {
		return Answer{}, denied("this workload may not use the network")
	}
	if err := f.cfg.Allow(); err != nil {
		return Answer{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, MaxTime)
	defer cancel()
	req, err := f.request(ctx, r)
	if err != nil {
		return Answer{}, err
	}
	res, err := f.http.Do(req)
	if err != nil {
		return Answer{}, reason(ctx, err)
	}
	defer res.Body.Close()
	limit := min(max(r.Max, 0), MaxAnswer)
	body, err := io.ReadAll(io.LimitReader(res.Body, limit+1))
	switch {
	case err != nil:
		return Answer{}, reason(ctx, err)
	case int64(len(body)) > limit:
		return Answer{}, mesh.Errorf(mesh.TooLarge, "the answer is over %d bytes", limit)
	}
	h := res.Header
	dropHops(h)
	return Answer{Status: res.StatusCode, Header: h, Body: body}, nil
}

// request turns what a guest said into a request, if it is one.
func (f *Client) request(ctx context.Context, r Request) (*http.Request, error) {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
	default:
		return nil, mesh.Errorf(mesh.Invalid, "the method %q is not supported", clip(r.Method))
	}
	if len(r.Body) > MaxBody {
		return nil, mesh.Errorf(mesh.TooLarge, "a body of over %d bytes", MaxBody)
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, r.URL, strings.NewReader(string(r.Body)))
	if err != nil {
		return nil, mesh.Errorf(mesh.Invalid, "the request is malformed").Because(err)
	}
	if err := f.check(req.URL); err != nil {
		return nil, err
	}
	fields, size := 0, 0
	for k, vv := range r.Header {
		for _, v := range vv {
			fields++
			size += len(k) + len(v)
			req.Header.Add(k, v)
		}
	}
	if fields > MaxFields || size > MaxHead {
		return nil, mesh.Errorf(mesh.TooLarge, "over %d header fields, or %d bytes of them", MaxFields, MaxHead)
	}
	dropHops(req.Header)
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", "peercompute-guest")
	}
	return req, nil
}

// reason is a failure in words that a guest may read: nothing of this machine.
func reason(ctx context.Context, err error) error {
	var known *mesh.Error
	var dns *net.DNSError
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return mesh.Errorf(mesh.Timeout, "no whole answer in time").Because(err)
	case errors.Is(ctx.Err(), context.Canceled):
		return mesh.Errorf(mesh.Canceled, "the guest ended")
	case errors.As(err, &dns):
		return mesh.Errorf(mesh.Unavailable, "the host has no address").Because(err)
	}
	return mesh.Errorf(mesh.Unavailable, "the request failed").Because(err)
}

// dropHops removes what is about one connection.
func dropHops(h http.Header) {
	for _, k := range []string{"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Host", "Content-Length"} {
		h.Del(k)
	}
}

func clip(s string) string {
	if len(s) > 100 {
		return s[:100] + "…"
	}
	return fmt.Sprint(s)
}
