package gateway

import (
	"bufio"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"

	"peercompute/pkg/mesh"
)

// ProxyConfig is what NewProxy needs.
type ProxyConfig struct {
	Table *Table
	Dial  Dialer
	Log   *slog.Logger

	RateIP   float64 // requests a second of one client (IPv4 address or IPv6 /64); 0 = unlimited
	RateName float64 // requests a second to one label; 0 = unlimited

	MaxPerName   int // requests under way to one label; 0 = 1024
	MaxPerTunnel int // requests under way to one publisher; 0 = 2048

	DialTimeout     time.Duration // to open a tunnel stream; 0 = 10 s
	ResponseTimeout time.Duration // from a request's last byte to its response's head; 0 = 2 min
	IdleTimeout     time.Duration // without a byte of a body either way; 0 = 2 min
	UpgradeIdle     time.Duration // without a byte on an upgraded connection; 0 = 10 min
	PoolIdle        time.Duration // that an unused stream is kept; 0 = 1 min
	BodyWindow      time.Duration // in which a client must send 1 KiB of an unanswered request's body; 0 = 10 s
}

// Proxy is the http.Handler that carries requests to workloads.
type Proxy struct {
	cfg    ProxyConfig
	byIP   *limiters[netip.Addr]
	byName *limiters[string]
	now    atomic.Int64 // Unix ns, to the precision of a tick

	buffers sync.Pool // *[copyBuffer]byte
	readers sync.Pool // *bufio.Reader of readBuffer bytes
	heads   sync.Pool // *[]byte
}

const (
	copyBuffer      = 64 << 10
	readBuffer      = 8 << 10
	maxResponseHead = 256 << 10 // bytes
	limiterEntries  = 32 << 10
	tick            = time.Second
)

// NewProxy checks the configuration. It starts nothing: deadlines hold while Run does.
func NewProxy(cfg ProxyConfig) (*Proxy, error) {
	if cfg.Table == nil || cfg.Dial == nil {
		return nil, errors.New("gateway: Table and Dial are required")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	setDefault(&cfg.MaxPerName, 1024)
	setDefault(&cfg.MaxPerTunnel, 2048)
	setDefault(&cfg.DialTimeout, 10*time.Second)
	setDefault(&cfg.ResponseTimeout, 2*time.Minute)
	setDefault(&cfg.IdleTimeout, 2*time.Minute)
	setDefault(&cfg.UpgradeIdle, 10*time.Minute)
	setDefault(&cfg.PoolIdle, time.Minute)
	setDefault(&cfg.BodyWindow, 10*time.Second)
	p := &Proxy{
		cfg:     cfg,
		byIP:    newLimiters[netip.Addr](cfg.RateIP, limiterEntries),
		byName:  newLimiters[string](cfg.RateName, limiterEntries),
		buffers: sync.Pool{New: func() any { return new([copyBuffer]byte) }},
		readers: sync.Pool{New: func() any { return bufio.NewReaderSize(nil, readBuffer) }},
		heads:   sync.Pool{New: func() any { b := make([]byte, 0, 2<<10); return &b }},
	}
	p.now.Store(time.Now().UnixNano())
	return p, nil
}

func setDefault[T int | time.Duration](p *T, v T) {
	if *p <= 0 {
		*p = v
	}
}

// Run enforces the deadlines of streams until ctx ends, then cuts them all. One
// ticker for all of them keeps timers out of each request's way.
func (p *Proxy) Run(ctx context.Context) error {
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			p.cfg.Table.cut()
			return nil
		case now := <-t.C:
			p.now.Store(now.UnixNano())
			p.cfg.Table.sweep(now.UnixNano())
		}
	}
}

// after is the deadline d from now. Deadlines are as coarse as the tick, on the
// long side.
func (p *Proxy) after(d time.Duration) int64 { return p.now.Load() + int64(d+tick) }

// ServeHTTP routes one request by its Host and carries it over a tunnel.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	client := clientAddr(r.RemoteAddr)
	if p.byIP != nil && !p.byIP.allow(clientKey(client), time.Now()) {
		pageRate.serve(w, r)
		return
	}
	if pg := refuse(r); pg != nil {
		pg.serve(w, r)
		return
	}
	label, kind := parseHost(r.Host, p.cfg.Table.cfg.Domain)
	switch kind {
	case hostInvalid:
		pageBadRequest.serve(w, r)
		return
	case hostForeign:
		pageForeign.serve(w, r)
		return
	case hostApex:
		if r.URL.Path == "/" {
			pageLanding.serve(w, r)
		} else {
			pageUnknown.serve(w, r)
		}
		return
	}
	e := p.cfg.Table.find(label)
	if e == nil {
		pageUnknown.serve(w, r)
		return
	}
	if p.byName != nil && !p.byName.allow(label, time.Now()) {
		pageRate.serve(w, r)
		return
	}
	defer e.pool.inFlight.Add(-1)
	defer e.tunnel.inFlight.Add(-1)
	ofName, ofTunnel := e.pool.inFlight.Add(1), e.tunnel.inFlight.Add(1) // both, as both are taken back
	if ofName > int64(p.cfg.MaxPerName) || ofTunnel > int64(p.cfg.MaxPerTunnel) {
		pageBusy.serve(w, r)
		return
	}
	p.carry(w, r, e, client)
}

// refuse finds what net/http lets through and no workload should see.
func refuse(r *http.Request) *page {
	switch r.Method {
	case http.MethodConnect, http.MethodTrace:
		return &pageMethod
	}
	if r.URL.User != nil || r.URL.Opaque != "" {
		return &pageBadRequest
	}
	switch r.URL.Scheme {
	case "", "http", "https":
	default:
		return &pageBadRequest
	}
	if r.RequestURI != "*" && !strings.HasPrefix(r.URL.RequestURI(), "/") {
		return &pageBadRequest
	}
	// A body that is neither counted nor chunked, or coded in a way we do not
	// read, could end elsewhere for the workload than for us.
	if len(r.TransferEncoding) > 1 || len(r.TransferEncoding) == 1 && r.TransferEncoding[0] != "chunked" {
		return &pageBadRequest
	}
	return nil
}

// upgradeTo is the protocol a request asks to change to, if it is one that the
// gateway carries; any other request to upgrade is carried as if it had not asked.
func upgradeTo(r *http.Request) string {
	if r.ProtoMajor == 1 && r.Method == http.MethodGet && r.ContentLength == 0 &&
		strings.EqualFold(r.Header.Get("Upgrade"), "websocket") &&
		httpguts.HeaderValuesContainsToken(r.Header["Connection"], "upgrade") {
		return "websocket"
	}
	return ""
}

// repeatable reports whether a request may be sent again when the first stream
// turned out dead before a byte of the reply.
func repeatable(r *http.Request) bool {
	if r.ContentLength != 0 {
		return false
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}

// open returns a stream to the entry's workload: an idle one unless fresh is
// asked for, and one that was looked at if the request cannot be repeated.
func (p *Proxy) open(ctx context.Context, e *entry, fresh, look bool) (*upstream, error) {
	for !fresh {
		u := e.pool.take()
		if u == nil {
			break
		}
		if look && !u.alive() {
			e.pool.discard(u)
			continue
		}
		return u, nil
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.DialTimeout)
	defer cancel()
	s, err := p.cfg.Dial(ctx, e.Publisher)
	if err != nil {
		return nil, err
	}
	u, err := e.pool.add(s)
	if err != nil {
		s.Reset()
		return nil, err
	}
	return u, nil
}

// failure is the page for a request that got no response.
func failure(err error) *page {
	var r *refusal
	switch {
	case errors.Is(err, errSlowBody):
		return &pageSlowRequest
	case errors.Is(err, errBadBody):
		return &pageBadRequest
	case errors.Is(err, errRetired):
		return &pageUnknown
	case errors.As(err, &r):
		if mesh.KindOf(err) == mesh.Overloaded {
			return &pageBusy
		}
		return &pageRefused
	case mesh.KindOf(err) == mesh.Unavailable, mesh.KindOf(err) == mesh.Untrusted:
		return &pageTunnel
	case mesh.KindOf(err) == mesh.Timeout:
		return &pageTimeout
	}
	return &pageBroken
}
