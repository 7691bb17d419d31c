package gateway

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"peercompute/pkg/mesh"
)

// Route says which workload of which peer serves a public label.
type Route struct {
	Label     string          `json:"label"` // set by the table: mesh.Label of the fields below
	Publisher mesh.PeerID     `json:"publisher"`
	First     mesh.PeerID     `json:"first,omitempty"` // the publisher's first key, which the label follows from; empty = Publisher
	Workload  mesh.WorkloadID `json:"workload"`
	Name      string          `json:"name"` // a DNS label, or empty
}

// TableConfig is what NewTable needs.
type TableConfig struct {
	Domain       string // the labels' parent, such as "apps.example.org"
	MaxRoutes    int    // in all; 0 = 65536
	MaxPublisher int    // of one publisher; 0 = 256
}

// Table is the routing table. Look-ups take no lock; a change copies the map.
type Table struct {
	cfg     TableConfig
	entries atomic.Pointer[map[string]*entry] // by label; never changed once stored

	mu      sync.Mutex // held to change entries
	tunnels map[mesh.PeerID]*tunnel

	resets resets // streams being reset
}

// entry is a route with the streams that serve it.
type entry struct {
	Route
	pool   *pool
	tunnel *tunnel
}

// tunnel is what all routes of one publisher share.
type tunnel struct {
	routes   int          // guarded by Table.mu
	inFlight atomic.Int64 // requests
}

// NewTable makes an empty table.
func NewTable(cfg TableConfig) (*Table, error) {
	if !validDomain(cfg.Domain) {
		return nil, mesh.Errorf(mesh.Invalid, "domain %q is not a lower-case DNS name", cfg.Domain).
			WithHint("use for example --domain apps.example.org, or localhost to try it out")
	}
	if cfg.MaxRoutes <= 0 {
		cfg.MaxRoutes = 65536
	}
	if cfg.MaxPublisher <= 0 {
		cfg.MaxPublisher = 256
	}
	t := &Table{cfg: cfg, tunnels: map[mesh.PeerID]*tunnel{}}
	t.entries.Store(&map[string]*entry{})
	return t, nil
}

// Domain is the labels' parent.
func (t *Table) Domain() string { return t.cfg.Domain }

// Set adds a route, or finds it there already, and returns it with its label.
// The label follows from publisher, workload and name, so nobody can take
// another's. A workload has one name: a second Set renames it.
func (t *Table) Set(r Route) (Route, error) {
	if r.Publisher == "" {
		return Route{}, mesh.Errorf(mesh.Invalid, "a route needs a publisher")
	}
	if _, err := mesh.ParseWorkloadID(string(r.Workload)); err != nil {
		return Route{}, err
	}
	if r.Name != "" && !mesh.ValidLabel(r.Name) {
		return Route{}, mesh.Errorf(mesh.Invalid, "name %q is not a DNS label of at most %d characters", r.Name, mesh.MaxName)
	}
	if r.First == "" {
		r.First = r.Publisher
	}
	r.Label = mesh.Label(r.Name, r.First, r.Workload)

	t.mu.Lock()
	defer t.mu.Unlock()
	old := *t.entries.Load()
	if e := old[r.Label]; e != nil {
		if e.Route == r {
			e.pool.renew() // the publisher says it again because something behind it has changed
			return r, nil
		}
		return Route{}, mesh.Errorf(mesh.Conflict, "label %s is taken", r.Label)
	}
	next := maps.Clone(old)
	renamed := t.removeLocked(next, func(e *entry) bool { return e.Publisher == r.Publisher && e.Workload == r.Workload })
	// Neither limit can be met by a rename, so nothing is lost by it.
	if len(next) >= t.cfg.MaxRoutes {
		return Route{}, mesh.Errorf(mesh.Overloaded, "the gateway's table of %d names is full", t.cfg.MaxRoutes).WithRule("gateway.names")
	}
	tu := t.tunnels[r.Publisher]
	if tu == nil {
		tu = &tunnel{}
		t.tunnels[r.Publisher] = tu
	}
	if tu.routes >= t.cfg.MaxPublisher {
		return Route{}, mesh.Errorf(mesh.Quota, "over %d names of one publisher", t.cfg.MaxPublisher).WithRule("gateway.publisher-names")
	}
	tu.routes++
	next[r.Label] = &entry{Route: r, pool: newPool(&t.resets), tunnel: tu}
	t.entries.Store(&next)
	retire(renamed)
	return r, nil
}

// Rekey moves a publisher's routes to another key of its. Their labels stay, and what
// is being served goes on.
func (t *Table) Rekey(from, to mesh.PeerID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	was, have := t.tunnels[from], t.tunnels[to]
	if was == nil {
		return // it has no route
	}
	if have == nil {
		have = was
	} else { // the new key has routes of its own already
		have.routes += was.routes
	}
	t.tunnels[to] = have
	delete(t.tunnels, from)
	next := maps.Clone(*t.entries.Load())
	for label, e := range next {
		if e.Publisher == from {
			with := *e
			with.Publisher, with.tunnel = to, have
			next[label] = &with
		}
	}
	t.entries.Store(&next)
}

// Withdraw removes a publisher's workload and cuts what is being served of it.
// It reports whether there was such a route.
func (t *Table) Withdraw(p mesh.PeerID, id mesh.WorkloadID) bool {
	return t.withdraw(func(e *entry) bool { return e.Publisher == p && e.Workload == id }) > 0
}

// WithdrawAll removes every route of a publisher, cuts what is being served of
// them and returns how many there were.
func (t *Table) WithdrawAll(p mesh.PeerID) int {
	return t.withdraw(func(e *entry) bool { return e.Publisher == p })
}

func (t *Table) withdraw(match func(*entry) bool) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := maps.Clone(*t.entries.Load())
	removed := t.removeLocked(next, match)
	if len(removed) > 0 {
		t.entries.Store(&next)
	}
	retire(removed)
	return len(removed)
}

// removeLocked takes the matching entries out of next.
func (t *Table) removeLocked(next map[string]*entry, match func(*entry) bool) []*entry {
	var out []*entry
	for label, e := range next {
		if !match(e) {
			continue
		}
		delete(next, label)
		out = append(out, e)
		if e.tunnel.routes--; e.tunnel.routes == 0 {
			delete(t.tunnels, e.Publisher)
		}
	}
	return out
}

// retire cuts the entries' streams. A request that found an entry before it was
// removed gets no stream from it after.
func retire(removed []*entry) {
	for _, e := range removed {
		e.pool.retire()
	}
}

// Lookup finds the route for a Host header.
func (t *Table) Lookup(host string) (Route, bool) {
	label, kind := parseHost(host, t.cfg.Domain)
	if kind != hostLabel {
		return Route{}, false
	}
	e := t.find(label)
	if e == nil {
		return Route{}, false
	}
	return e.Route, true
}

func (t *Table) find(label string) *entry { return (*t.entries.Load())[label] }

// List returns all routes, ordered by label.
func (t *Table) List() []Route {
	entries := *t.entries.Load()
	out := make([]Route, 0, len(entries))
	for _, e := range entries {
		out = append(out, e.Route)
	}
	slices.SortFunc(out, func(a, b Route) int { return cmp.Compare(a.Label, b.Label) })
	return out
}

// sweep gives up every stream that is over its deadline or has idled too long.
func (t *Table) sweep(now int64) {
	for _, e := range *t.entries.Load() {
		e.pool.sweep(now)
	}
}

// cut resets every stream and waits for that; the routes stay.
func (t *Table) cut() {
	for _, e := range *t.entries.Load() {
		e.pool.cut()
	}
	t.resets.Wait()
}
