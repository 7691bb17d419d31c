package admission

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
	"peercompute/pkg/trust"
	"peercompute/pkg/wire"
)

// Bounds of what the gate remembers.
const (
	DefaultMaxNonces  = 1 << 20
	maxChallenges     = 16 // outstanding, per peer
	challengeLifetime = time.Minute
	pruneAtOnce       = 64 // expired nonces dropped by each write
)

// Trust is what the gate asks of the trust list.
type Trust interface {
	Get(mesh.PeerID) (trust.Grant, bool)
}

// Config is what NewGate needs.
type Config struct {
	Store     *store.Store
	Trust     Trust
	Self      mesh.PeerID
	Now       func() time.Time
	MaxNonces int // 0 = DefaultMaxNonces
	// Elapsed is a clock that cannot be set: time since any start; nil = the process's.
	Elapsed func() time.Duration
}

// Gate lets each request through at most once.
type Gate struct {
	cfg Config

	mu         sync.Mutex
	high       time.Time                            // the latest time ever used; persisted
	elapsed    time.Duration                        // of Config.Elapsed when high was last looked at
	nonces     int                                  // records in the store
	inFlight   map[nonceKey]chan struct{}           // closed when the outcome is recorded
	challenges map[mesh.PeerID]map[string]time.Time // challenge → when it lapses
	limiters   map[mesh.PeerID]*limiter
}

type limiter struct {
	*rate.Limiter
	perMinute int
}

type nonceKey string

var keyHigh = []byte("time_high") // in store.Meta: Unix ms

// NewGate reads what was remembered.
func NewGate(cfg Config) (*Gate, error) {
	if cfg.MaxNonces == 0 {
		cfg.MaxNonces = DefaultMaxNonces
	}
	if cfg.Elapsed == nil {
		start := time.Now()
		cfg.Elapsed = func() time.Duration { return time.Since(start) }
	}
	g := &Gate{
		cfg: cfg, inFlight: map[nonceKey]chan struct{}{},
		challenges: map[mesh.PeerID]map[string]time.Time{}, limiters: map[mesh.PeerID]*limiter{},
	}
	g.elapsed = cfg.Elapsed()
	err := cfg.Store.View(func(tx *store.Tx) error {
		g.nonces = tx.Count(store.Nonces)
		if v := tx.Get(store.Meta, keyHigh); len(v) == 8 {
			g.high = time.UnixMilli(int64(binary.BigEndian.Uint64(v)))
		}
		return nil
	})
	return g, err
}

// Now is the time that requests are judged by: the wall clock, but never before
// a time that was used already, also across restarts. Where the wall clock was ahead
// once and was put right, this time goes on at half speed until it is caught up
// with: if it stood still, nonces would not expire and fill their table in the end.
func (g *Gate) Now() time.Time {
	now, elapsed := g.cfg.Now(), g.cfg.Elapsed()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.high = g.high.Add(max(0, elapsed-g.elapsed) / 2)
	g.elapsed = elapsed
	if now.After(g.high) {
		g.high = now
	}
	return g.high
}

// Challenge makes a single-use challenge for p, to be signed into a request that
// is then judged without clocks. The oldest outstanding one of p gives way.
func (g *Gate) Challenge(p mesh.PeerID) []byte {
	c := make([]byte, 16)
	rand.Read(c)
	now := g.cfg.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	mine := g.challenges[p]
	if mine == nil {
		mine = map[string]time.Time{}
		g.challenges[p] = mine
	}
	oldest := ""
	for k, lapse := range mine {
		if now.After(lapse) {
			delete(mine, k)
		} else if oldest == "" || lapse.Before(mine[oldest]) {
			oldest = k
		}
	}
	if len(mine) >= maxChallenges {
		delete(mine, oldest)
	}
	mine[string(c)] = now.Add(challengeLifetime)
	return c
}

func (g *Gate) redeem(p mesh.PeerID, c []byte) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	lapse, ok := g.challenges[p][string(c)]
	delete(g.challenges[p], string(c))
	return ok && !g.cfg.Now().After(lapse)
}

// Forget drops what is remembered about a removed peer besides its nonces.
func (g *Gate) Forget(p mesh.PeerID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.challenges, p)
	delete(g.limiters, p)
}

// Ticket is the right to act on one request, once.
type Ticket struct {
	*wire.Opened
	Grant trust.Grant
	gate  *Gate
	key   nonceKey
	done  chan struct{}
}

// Admit judges a request that arrived on conn's connection. It returns a ticket
// for a new one; for a repeated one the first answer; or why it is refused. The
// nonce is on disk before Admit returns a ticket.
func (g *Gate) Admit(ctx context.Context, conn mesh.PeerID, o *wire.Opened) (t *Ticket, prior []byte, err error) {
	refuse := func(k mesh.Kind, rule, msg string) (*Ticket, []byte, error) {
		return nil, nil, mesh.Errorf(k, "%s", msg).WithRule(rule)
	}
	switch {
	case subtle.ConstantTimeCompare([]byte(o.Signer), []byte(conn)) != 1:
		return refuse(mesh.Forged, "request.signer", "the request is not signed by the peer that sent it")
	case o.From != o.Signer:
		return refuse(mesh.Forged, "request.from", "the request names another sender than its signer")
	case o.To != g.cfg.Self:
		return refuse(mesh.Misdirected, "request.to", "the request is addressed to another peer")
	case o.Incarnation != g.cfg.Store.Incarnation():
		return refuse(mesh.Misdirected, "request.incarnation", "the request is for another life of this node's state")
	}
	grant, ok := g.cfg.Trust.Get(conn)
	if !ok {
		return refuse(mesh.Untrusted, "trust", "you are not on this machine's trust list")
	}
	now := g.Now()
	issued, expires := time.UnixMilli(o.Issued), time.UnixMilli(o.Expires)
	key := nonceKey(string(conn) + string(o.Nonce[:]))
	if len(o.Challenge) == 0 {
		if err := window(now, issued, expires, wire.MaxDrift, wire.Lifetime); err != nil {
			return nil, nil, err
		}
	}
	if prior, err := g.lookup(ctx, key, o.Digest); prior != nil || err != nil {
		return nil, prior, err
	}
	if len(o.Challenge) > 0 {
		if !g.redeem(conn, o.Challenge) {
			return refuse(mesh.Stale, "time.challenge", "the challenge in the request is unknown, used or lapsed")
		}
		expires = now.Add(wire.Lifetime)
	}
	if !g.allowRate(grant) {
		return nil, nil, mesh.Errorf(mesh.Quota, "more than %d requests a minute exceed your grant there", grant.Quota.Requests).
			WithRule("grant.requests").WithHint("slow down, or ask its owner for: peerctl peers allow %s --requests %d", conn, 2*max(grant.Quota.Requests, 30))
	}
	t = &Ticket{Opened: o, Grant: grant, gate: g, key: key, done: make(chan struct{})}
	if err := g.record(ctx, t, now, expires); err != nil {
		if errors.Is(err, errKnown) { // the same request came twice at once, and this is the later one
			prior, err := g.lookup(ctx, key, o.Digest)
			return nil, prior, err
		}
		return nil, nil, err
	}
	return t, nil, nil
}

func (g *Gate) allowRate(grant trust.Grant) bool {
	g.mu.Lock()
	l := g.limiters[grant.Peer]
	if l == nil || l.perMinute != grant.Quota.Requests {
		l = &limiter{rate.NewLimiter(rate.Limit(float64(grant.Quota.Requests)/60), grant.Quota.Requests), grant.Quota.Requests}
		g.limiters[grant.Peer] = l
	}
	g.mu.Unlock()
	return l.AllowN(g.cfg.Now(), 1)
}
