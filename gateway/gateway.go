package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"peercompute/pkg/admission"
	"peercompute/pkg/control"
	"peercompute/pkg/member"
	"peercompute/pkg/mesh"
	"peercompute/pkg/request"
	"peercompute/pkg/store"
	"peercompute/pkg/trust"
	"peercompute/pkg/wire"
)

// Config is what New needs.
type Config struct {
	Member   *member.Member
	Domain   string  // the parent of all public names
	HTTP     string  // TCP address to serve the public on
	RateIP   float64 // requests a second of one client; 0 = unlimited
	RateName float64 // requests a second to one name; 0 = unlimited
}

// How long routes outlive what confirmed them.
const (
	sweepEvery   = 5 * time.Second
	offlineGrace = 5 * time.Minute  // a publisher that is away keeps its names
	repeatGrace  = 20 * time.Second // one that came back has said again what it publishes
)

// Gateway is peergate's inside: a node of the mesh that routes public names to
// the peers that publish them. It runs no workloads and parses no user code.
type Gateway struct {
	cfg    Config
	m      *member.Member
	log    *slog.Logger
	table  *Table
	server *Server
	base   string        // of public URLs: "http://%s.DOMAIN:PORT"
	wake   chan struct{} // sweep now

	mu        sync.Mutex
	seen      map[mesh.PeerID]presence
	confirmed map[string]time.Time // by label
}

// presence is since when a publisher is connected, or away.
type presence struct {
	up    bool
	since time.Time
}

// New puts a gateway together; nothing runs before Run.
func New(cfg Config) (*Gateway, error) {
	g := &Gateway{cfg: cfg, m: cfg.Member, log: cfg.Member.Log, wake: make(chan struct{}, 1), seen: map[mesh.PeerID]presence{}, confirmed: map[string]time.Time{}}
	if cfg.RateIP < 0 || cfg.RateName < 0 {
		return nil, mesh.Errorf(mesh.Invalid, "a rate limit cannot be negative").WithHint("0 means no limit")
	}
	var err error
	if g.table, err = NewTable(TableConfig{Domain: cfg.Domain, MaxPublisher: 4096}); err != nil {
		return nil, err
	}
	proxy, err := NewProxy(ProxyConfig{Table: g.table, Dial: Tunnels(g.m.Net), Log: g.log, RateIP: cfg.RateIP, RateName: cfg.RateName})
	if err != nil {
		return nil, err
	}
	if g.server, err = NewServer(ServerConfig{Proxy: proxy, Log: g.log}); err != nil {
		return nil, err
	}
	g.m.OnPeer(g.peerChanged)
	g.m.OnRekeyed(g.rekeyed)
	g.m.OnTrust(func() {
		select {
		case g.wake <- struct{}{}:
		default:
		}
	})
	return g, nil
}

// Run serves the public and the mesh until ctx ends. ready is called with the
// public address once both can be reached.
func (g *Gateway) Run(ctx context.Context, ready func(public string)) error {
	ln, err := net.Listen("tcp", g.cfg.HTTP)
	if err != nil {
		return mesh.Errorf(mesh.Unavailable, "cannot serve the public on %s", g.cfg.HTTP).
			WithHint("is another program using the port? choose another with --http").Because(err)
	}
	_, port, err := net.SplitHostPort(ln.Addr().String())
	if err != nil {
		ln.Close()
		return err
	}
	g.base = "." + g.cfg.Domain
	if port != "80" {
		g.base += ":" + port
	}
	handlers := map[wire.Verb]request.Handler{wire.VerbPublish: g.onPublish, wire.VerbUnpublish: g.onUnpublish}
	up := func() {
		if ready != nil {
			ready("http://" + ln.Addr().String())
		}
	}
	serve := func(ctx context.Context) error {
		var eg errgroup.Group
		eg.Go(func() error { return g.server.Run(ctx, ln) })
		eg.Go(func() error { return g.sweep(ctx) })
		return eg.Wait()
	}
	served := false
	err = g.m.Run(ctx, handlers, nil, member.Hooks{Withdraw: g.withdraw, Halt: g.halt, Status: g.status}, up, func(ctx context.Context) error {
		served = true
		return serve(ctx)
	})
	if !served {
		err = errors.Join(err, ln.Close())
	}
	return err
}

func (g *Gateway) url(label string) string { return "http://" + label + g.base }

// onPublish routes a name to the sender. The label follows from who sends it, so
// no request can claim another's.
func (g *Gateway) onPublish(_ context.Context, c *request.Call) (request.Reply, error) {
	var in wire.Publish
	if err := wire.DecodeBody(c.Body, &in); err != nil {
		return request.Reply{}, err
	}
	first := c.Grant.First() // so that its names outlast a change of its key
	r := Route{Publisher: c.From, First: first, Workload: in.Workload, Name: in.Name}
	label := mesh.Label(in.Name, first, in.Workload)
	return request.Reply{
		Body: wire.Published{Label: label, URL: g.url(label)},
		Commit: func(tx *store.Tx) error {
			held := 0
			for _, have := range g.table.List() {
				if have.Publisher == c.From && have.Workload != in.Workload {
					held++
				}
			}
			if err := admission.DecideRoute(c.Grant, held).Refusal(c.From); err != nil {
				return err
			}
			if _, err := g.table.Set(r); err != nil {
				return err
			}
			g.mu.Lock()
			g.confirmed[label] = g.m.Now()
			g.mu.Unlock()
			return g.note(tx, c.From, "route", in.Workload, label)
		},
		After: func() {
			g.tell("route", c.From, in.Workload, label)
			g.log.Info("routing a name", "label", label, "peer", c.From, "workload", in.Workload)
		},
	}, nil
}

func (g *Gateway) onUnpublish(_ context.Context, c *request.Call) (request.Reply, error) {
	var in wire.Ref
	if err := wire.DecodeBody(c.Body, &in); err != nil {
		return request.Reply{}, err
	}
	return request.Reply{
		Body: wire.Empty{},
		Commit: func(tx *store.Tx) error {
			g.table.Withdraw(c.From, in.Workload)
			return g.note(tx, c.From, "unroute", in.Workload, "")
		},
		After: func() { g.tell("unroute", c.From, in.Workload, "") },
	}, nil
}

// withdraw ends what a removed peer has here.
func (g *Gateway) withdraw(_ context.Context, p mesh.PeerID, _ bool) ([]mesh.WorkloadID, error) {
	g.table.WithdrawAll(p)
	return nil, nil
}

// halt drops every route.
func (g *Gateway) halt(context.Context) ([]mesh.WorkloadID, error) {
	for _, r := range g.table.List() {
		g.table.Withdraw(r.Publisher, r.Workload)
	}
	return nil, nil
}

// rekeyed makes the routes of a publisher follow to its new key.
func (g *Gateway) rekeyed(from, to mesh.PeerID) {
	g.table.Rekey(from, to)
	g.mu.Lock()
	defer g.mu.Unlock()
	// Under the new key it has not connected yet; until it has, its names are kept.
	g.seen[to] = presence{since: g.m.Now()}
	delete(g.seen, from)
}

func (g *Gateway) peerChanged(p mesh.PeerID, up bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if was := g.seen[p]; was.up != up || was.since.IsZero() {
		g.seen[p] = presence{up, g.m.Now()}
	}
}

// sweep drops routes that nobody stands for any more: the publisher lost the
// right or has been away for long, or came back without naming them again.
func (g *Gateway) sweep(ctx context.Context) error {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-g.wake: // a right may have been taken away
		case <-ctx.Done():
			return nil
		}
		g.sweepOnce(g.m.Now())
	}
}

func (g *Gateway) sweepOnce(now time.Time) {
	live := map[string]bool{}
	deaf := map[mesh.PeerID]trust.Grant{} // publishers that believe to have names that they lost
	for _, r := range g.table.List() {
		grant, trusted := g.m.Trust.Get(r.Publisher)
		g.mu.Lock()
		at, said := g.seen[r.Publisher], g.confirmed[r.Label]
		g.mu.Unlock()
		stale := !trusted || !grant.Allow.Has(trust.Publish) ||
			!at.up && now.Sub(at.since) > offlineGrace ||
			at.up && said.Before(at.since) && now.Sub(at.since) > repeatGrace
		if stale {
			g.table.Withdraw(r.Publisher, r.Workload)
			g.dropped(r)
			g.log.Info("dropped a name that nobody stands for", "label", r.Label, "peer", r.Publisher)
			if trusted && at.up {
				deaf[r.Publisher] = grant
			}
			continue
		}
		live[r.Label] = true
	}
	for p, grant := range deaf {
		// With a new connection it asks for its names anew, and hears the answer.
		if err := g.m.Net.Disconnect(p); err != nil {
			g.log.Warn("cannot close a connection cleanly", "peer", p, "err", err)
		}
		g.m.Net.Learn(p, grant.Addrs)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for label := range g.confirmed {
		if !live[label] && now.Sub(g.confirmed[label]) > sweepEvery {
			delete(g.confirmed, label)
		}
	}
	for p, at := range g.seen {
		if !at.up && now.Sub(at.since) > offlineGrace {
			delete(g.seen, p)
		}
	}
}

func (g *Gateway) status(s *control.Status) {
	for _, r := range g.table.List() {
		_, up := g.m.Net.Connected(r.Publisher)
		s.Routes = append(s.Routes, control.Route{URL: g.url(r.Label), Workload: r.Workload, Peer: g.m.Trust.Name(r.Publisher), Up: up})
	}
	for _, p := range g.m.Trust.All() {
		if addr, up := g.m.Net.Connected(p.Peer); up {
			s.Tunnels = append(s.Tunnels, control.Tunnel{Peer: p.Name, Up: true, Address: addr})
		} else if p.Allow.Has(trust.Publish) {
			s.Tunnels = append(s.Tunnels, control.Tunnel{Peer: p.Name, Detail: "not connected: peers dial the gateway"})
		}
	}
	slices.SortFunc(s.Routes, func(a, b control.Route) int { return strings.Compare(a.URL, b.URL) })
	if !strings.HasPrefix(g.base, ".localhost") {
		s.Warnings = append(s.Warnings, "public names are served over plain HTTP; put a TLS terminator in front")
	}
}
