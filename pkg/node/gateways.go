package node

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"peercompute/pkg/control"
	"peercompute/pkg/event"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
	"peercompute/pkg/supervisor"
	"peercompute/pkg/trust"
	"peercompute/pkg/wire"
)

// gateways keeps a connection to each gateway that this machine trusts with
// "route", and tells it which names to route. What a gateway has confirmed lasts
// as long as the connection: after a break everything is said again.
type gateways struct {
	n    *Node
	wake chan struct{}

	mu    sync.Mutex
	links map[mesh.PeerID]*link
	urls  map[mesh.WorkloadID]publication
	news  chan struct{} // closed when urls change
}

type publication struct {
	gateway mesh.PeerID
	run     mesh.WorkloadID // that the gateway was told of
	url     string
	err     string
}

// confirmations are the workloads that a gateway routes, each with the run that was
// reached when it was last told. After a switch it is told again: then it lets go of
// the streams that it keeps for later requests, which reach the run before.
type confirmations map[mesh.WorkloadID]mesh.WorkloadID

// route is a name that a gateway should route.
type route struct {
	name string
	run  mesh.WorkloadID // that is reached now
}

// link is the state of one gateway's connection.
type link struct {
	gateway mesh.PeerID
	wake    chan struct{}
	stop    context.CancelFunc
	events  *event.Bus

	mu     sync.Mutex
	up     bool
	lost   bool   // the connection went since it was last looked at
	detail string // why it is down
}

func newGateways(n *Node) *gateways {
	return &gateways{
		n: n, wake: make(chan struct{}, 1), links: map[mesh.PeerID]*link{},
		urls: map[mesh.WorkloadID]publication{}, news: make(chan struct{}),
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// poke makes every link compare what is published with what should be.
func (g *gateways) poke() {
	signal(g.wake)
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, l := range g.links {
		signal(l.wake)
	}
}

func (g *gateways) peerChanged(p mesh.PeerID, up bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if l := g.links[p]; l != nil && !up {
		l.mu.Lock()
		l.lost = true
		l.mu.Unlock()
		signal(l.wake)
	}
}

// changed is closed when a public address comes, goes or is refused.
func (g *gateways) changed() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.news
}

// url is what the gateway that a record's wish means has said about the workload. What
// another one said, from which it is moving away, or of a run that was replaced, does
// not count.
func (g *gateways) url(r supervisor.Record) (url, failure string) {
	if r.Publish == nil {
		return "", ""
	}
	to, err := g.find(r.Publish.Gateway)
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.urls[r.Workload.ID]
	if err != nil || p.gateway != to.Peer || p.run != r.Current() {
		return "", ""
	}
	return p.url, p.err
}

func (g *gateways) setURL(id mesh.WorkloadID, p publication) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.urls[id] = p
	close(g.news)
	g.news = make(chan struct{})
}

// clear drops what a gateway said about the workloads that drop names; what
// another gateway said stays.
func (g *gateways) clear(gateway mesh.PeerID, drop func(mesh.WorkloadID) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := len(g.urls)
	maps.DeleteFunc(g.urls, func(id mesh.WorkloadID, p publication) bool { return p.gateway == gateway && drop(id) })
	if len(g.urls) != n {
		close(g.news)
		g.news = make(chan struct{})
	}
}

// trusted lists the peers that may route to this machine.
func (g *gateways) trusted() []trust.Grant {
	if _, locked := g.n.m.Trust.Locked(); locked {
		return nil
	}
	return slices.DeleteFunc(g.n.m.Trust.Live(), func(t trust.Grant) bool { return !t.Allow.Has(trust.Route) })
}

// find resolves what a publication calls its gateway: a name, an ID, or nothing
// when there is only one.
func (g *gateways) find(ref string) (trust.Grant, error) {
	all := g.trusted()
	const hint = "its owner trusts one with: peerctl peers add MULTIADDR --name gw --allow route"
	if len(all) == 0 {
		return trust.Grant{}, mesh.Errorf(mesh.Unavailable, "this machine uses no gateway, so nothing can be published").
			WithRule("host.gateway").WithHint(hint)
	}
	if ref == "" {
		if len(all) == 1 {
			return all[0], nil
		}
		return trust.Grant{}, mesh.Errorf(mesh.Invalid, "this machine uses %d gateways: %s", len(all), names(all)).
			WithRule("host.gateway").WithHint("choose one with --gateway")
	}
	var named mesh.PeerID // those who ask know the gateway by its ID, perhaps a former one
	if id, err := mesh.ParsePeerID(ref); err == nil {
		named = g.n.m.Trust.Resolve(id)
	}
	for _, t := range all {
		if t.Name == ref || t.Peer == named {
			return t, nil
		}
	}
	return trust.Grant{}, mesh.Errorf(mesh.NotFound, "this machine uses no gateway called %q, only: %s", ref, names(all)).
		WithRule("host.gateway").WithHint(hint)
}

func names(all []trust.Grant) string {
	var out []string
	for _, t := range all {
		out = append(out, t.Name)
	}
	return strings.Join(out, ", ")
}

// run keeps one link per trusted gateway.
func (g *gateways) run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	last := map[mesh.PeerID]chan struct{}{} // closed when the latest link to a gateway has ended
	for {
		want := map[mesh.PeerID]bool{}
		for _, t := range g.trusted() {
			want[t.Peer] = true
		}
		g.mu.Lock()
		for p, l := range g.links {
			if !want[p] {
				l.stop()
				delete(g.links, p)
			}
		}
		for p := range want {
			if g.links[p] == nil {
				linkCtx, stop := context.WithCancel(ctx)
				l := &link{gateway: p, wake: make(chan struct{}, 1), stop: stop, events: g.n.m.Events, detail: "connecting"}
				g.links[p] = l
				before, done := last[p], make(chan struct{})
				last[p] = done
				wg.Go(func() {
					defer close(done)
					if before != nil {
						<-before // what it withdraws must not meet what this one publishes
					}
					confirmed := confirmations{}
					g.serve(linkCtx, l, confirmed)
					g.leave(ctx, l, confirmed)
				})
			}
		}
		g.mu.Unlock()
		select {
		case <-g.wake:
		case <-ctx.Done():
			return nil
		}
	}
}

const (
	connectTimeout = 10 * time.Second
	leaveTimeout   = 3 * time.Second
	recheck        = 15 * time.Second // a refused publication is asked for again
	maxPause       = 15 * time.Second
)

func (g *gateways) serve(ctx context.Context, l *link, confirmed confirmations) {
	for failures := 0; ctx.Err() == nil; {
		l.mu.Lock()
		l.lost = false
		l.mu.Unlock()
		dial, cancel := context.WithTimeout(ctx, connectTimeout)
		err := g.n.m.Net.Connect(dial, l.gateway)
		cancel()
		if err != nil {
			l.set(false, err.Error())
			pause := min(100*time.Millisecond<<min(failures, 8), maxPause)
			pause = time.Duration(float64(pause) * (0.8 + 0.4*rand.Float64()))
			failures++
			t := time.NewTimer(pause)
			select {
			case <-t.C:
			case <-ctx.Done():
				t.Stop()
			}
			continue
		}
		failures = 0
		l.set(true, "")
		g.session(ctx, l, confirmed)
		if ctx.Err() != nil {
			return
		}
		l.set(false, "the connection was lost; trying again")
		g.forget(l, confirmed)
	}
}

// session keeps the gateway's routes right until the connection goes.
func (g *gateways) session(ctx context.Context, l *link, confirmed confirmations) {
	for failures := 0; ; {
		pause := recheck
		if g.sync(ctx, l, confirmed) {
			failures = 0
		} else { // a name that should be gone is not left to the next round
			pause = min(100*time.Millisecond<<min(failures, 8), recheck)
			failures++
		}
		t := time.NewTimer(pause)
		select {
		case <-l.wake:
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
		l.mu.Lock()
		lost := l.lost
		l.mu.Unlock()
		if lost || ctx.Err() != nil {
			return
		}
	}
}

// sync withdraws and publishes what is due; it reports whether all names that
// should be gone are.
func (g *gateways) sync(ctx context.Context, l *link, confirmed confirmations) (gone bool) {
	want, err := g.wanted(l.gateway)
	if err != nil {
		g.n.log.Error("cannot read the workloads", "err", err)
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	unwanted := func(id mesh.WorkloadID) bool { _, ok := want[id]; return !ok }
	g.clear(l.gateway, unwanted)
	gone = true
	for id := range confirmed {
		if !unwanted(id) {
			continue
		}
		g.n.tunnels.Drop(id)
		if err := g.n.m.Client.Do(ctx, l.gateway, wire.VerbUnpublish, wire.Ref{Workload: id}, nil); err != nil {
			// The tunnel refuses it from now on; the gateway hears of it again later.
			g.n.log.Warn("cannot withdraw a public name; trying again", "workload", id, "err", err)
			gone = false
			continue
		}
		delete(confirmed, id)
		g.n.m.Events.Publish(event.Event{Type: event.Tunnel, Name: "withdrawn", Peer: l.gateway, Subject: string(id)})
	}
	for id, to := range want {
		if confirmed[id] == to.run {
			continue
		}
		var out wire.Published
		err := g.n.m.Client.Do(ctx, l.gateway, wire.VerbPublish, wire.Publish{Workload: id, Name: to.name}, &out)
		if err != nil {
			why := g.n.m.Trust.Name(l.gateway) + " refused: " + mesh.AsError(err).Msg
			g.setURL(id, publication{gateway: l.gateway, run: to.run, err: why})
			g.n.m.Events.Publish(event.Event{Type: event.Tunnel, Name: "refused", Peer: l.gateway, Subject: string(id), Rule: mesh.AsError(err).Rule, Detail: why})
			g.n.log.Warn("cannot publish", "workload", id, "gateway", l.gateway, "err", err)
			continue
		}
		confirmed[id] = to.run
		g.setURL(id, publication{gateway: l.gateway, run: to.run, url: out.URL})
		g.n.m.Events.Publish(event.Event{Type: event.Tunnel, Name: "published", Peer: l.gateway, Subject: string(id), Detail: out.URL})
	}
	return gone
}

// wanted lists the workloads that this gateway should route now, with their names.
func (g *gateways) wanted(gateway mesh.PeerID) (map[mesh.WorkloadID]route, error) {
	want := map[mesh.WorkloadID]route{}
	err := g.n.m.Store.View(func(tx *store.Tx) error {
		return supervisor.Each(tx, func(r supervisor.Record) error {
			if r.Publish == nil || r.Desired != supervisor.Run {
				return nil
			}
			to, err := g.find(r.Publish.Gateway)
			st, _, _ := g.n.sup.Status(r.Workload.ID)
			_, ended := g.n.m.Trust.Ended(r.Workload.Owner)
			// A paused one keeps its name: visitors hear that it is paused.
			if up := st.State == mesh.Running || st.State == mesh.Paused; err == nil && to.Peer == gateway && up && !ended {
				want[r.Workload.ID] = route{r.Workload.Spec.Name, g.n.sup.Current(r.Workload.ID)}
			}
			return nil
		})
	})
	return want, err
}

// forget drops the addresses that a broken connection stood for.
func (g *gateways) forget(l *link, confirmed confirmations) {
	clear(confirmed)
	g.clear(l.gateway, func(mesh.WorkloadID) bool { return true })
}

// leave ends what a gateway carries that this machine does not use any more: its
// open tunnels at once, the names as far as it still listens. ctx is the node's.
func (g *gateways) leave(ctx context.Context, l *link, confirmed confirmations) {
	for id := range confirmed {
		g.n.tunnels.Drop(id)
	}
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	for id := range confirmed {
		if _, known := g.n.m.Trust.Get(l.gateway); !known || ctx.Err() != nil {
			break // it hears nothing from us any more
		}
		if err := g.n.m.Client.Do(ctx, l.gateway, wire.VerbUnpublish, wire.Ref{Workload: id}, nil); err != nil {
			g.n.log.Warn("cannot withdraw a public name from a gateway that is not used any more", "workload", id, "gateway", l.gateway, "err", err)
		}
	}
	g.forget(l, confirmed)
}

func (l *link) set(up bool, detail string) {
	l.mu.Lock()
	changed := l.up != up
	l.up, l.detail = up, detail
	l.mu.Unlock()
	if changed {
		l.events.Publish(event.Event{Type: event.Tunnel, Name: upOrDown(up), Peer: l.gateway, Detail: detail})
	}
}

// report is for status.
func (g *gateways) report() ([]control.Route, []control.Tunnel) {
	routes, tunnels := []control.Route{}, []control.Tunnel{}
	g.mu.Lock()
	defer g.mu.Unlock()
	for id, p := range g.urls {
		if p.url != "" {
			routes = append(routes, control.Route{URL: p.url, Workload: id, Peer: g.n.m.Trust.Name(p.gateway), Up: true})
		}
	}
	for p, l := range g.links {
		l.mu.Lock()
		t := control.Tunnel{Peer: g.n.m.Trust.Name(p), Up: l.up, Detail: l.detail}
		l.mu.Unlock()
		t.Address, _ = g.n.m.Net.Connected(p)
		tunnels = append(tunnels, t)
	}
	slices.SortFunc(routes, func(a, b control.Route) int { return strings.Compare(a.URL, b.URL) })
	slices.SortFunc(tunnels, func(a, b control.Tunnel) int { return strings.Compare(a.Peer, b.Peer) })
	return routes, tunnels
}
