// Package publish is the peer's end of the tunnel: it accepts the streams that a
// gateway opens, asks whether that gateway may reach that workload, dials the
// workload and copies bytes both ways. It knows nothing of HTTP and decides
// nothing itself.
package publish

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"peercompute/pkg/mesh"
	"peercompute/pkg/socket"
	"peercompute/pkg/wire"
)

// Stream is one tunnel stream. A *peernet.Stream is one.
type Stream interface {
	net.Conn
	CloseWrite() error
	Reset()
}

// Config is what New needs.
type Config struct {
	// Allow is asked for every stream whether this gateway may reach this
	// workload now. Only nil allows.
	Allow func(gateway mesh.PeerID, id mesh.WorkloadID) error
	// Dial connects to the workload's port. done is called once the connection has
	// ended.
	Dial func(ctx context.Context, id mesh.WorkloadID) (conn net.Conn, done func(), err error)
	Log  *slog.Logger

	MaxStreams    int           // streams at once of one gateway; 0 = 2048
	HeaderTimeout time.Duration // from the stream's start to its header; 0 = 10 s
	DialTimeout   time.Duration // to reach the workload; 0 = 10 s
	IdleTimeout   time.Duration // without a byte either way; 0 = 15 min
	LingerTimeout time.Duration // without a byte once one side has ended; 0 = 30 s
}

// Tunnels serves tunnel streams.
type Tunnels struct {
	cfg     Config
	buffers sync.Pool // *[bufferSize]byte

	mu        sync.Mutex
	streams   map[mesh.PeerID]int
	workloads map[mesh.WorkloadID]map[*splice]struct{}
}

// New checks the configuration. It starts nothing.
func New(cfg Config) (*Tunnels, error) {
	if cfg.Allow == nil || cfg.Dial == nil {
		return nil, errors.New("publish: Allow and Dial are required")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxStreams <= 0 {
		cfg.MaxStreams = 2048
	}
	setDefault(&cfg.HeaderTimeout, 10*time.Second)
	setDefault(&cfg.DialTimeout, 10*time.Second)
	setDefault(&cfg.IdleTimeout, 15*time.Minute)
	setDefault(&cfg.LingerTimeout, 30*time.Second)
	return &Tunnels{
		cfg:       cfg,
		buffers:   sync.Pool{New: func() any { return new([bufferSize]byte) }},
		streams:   map[mesh.PeerID]int{},
		workloads: map[mesh.WorkloadID]map[*splice]struct{}{},
	}, nil
}

func setDefault(d *time.Duration, v time.Duration) {
	if *d <= 0 {
		*d = v
	}
}

// Serve handles one stream that gateway opened, until both directions have ended,
// ctx is done, or nothing has moved for too long.
func (t *Tunnels) Serve(ctx context.Context, gateway mesh.PeerID, s Stream) {
	if !t.enter(gateway) {
		t.refuse(s, gateway, "", mesh.Errorf(mesh.Overloaded, "over %d tunnel streams at once", t.cfg.MaxStreams))
		return
	}
	defer t.leave(gateway)

	_ = s.SetDeadline(time.Now().Add(t.cfg.HeaderTimeout))
	h, err := wire.ReadTunnelHeader(s)
	if err != nil {
		t.refuse(s, gateway, "", err)
		return
	}
	sp := &splice{stream: s, tunnels: t}
	// Registered before it is allowed, so that a Drop in between still finds it.
	t.track(h.Workload, sp)
	defer t.untrack(h.Workload, sp)
	if err := t.cfg.Allow(gateway, h.Workload); err != nil {
		t.refuse(s, gateway, h.Workload, err)
		return
	}
	conn, done, err := t.dial(ctx, h.Workload)
	if err != nil {
		t.refuse(s, gateway, h.Workload, err)
		return
	}
	defer done()
	defer conn.Close()
	_ = s.SetDeadline(time.Time{})
	sp.run(ctx, socket.Wrap(conn))
}

func (t *Tunnels) dial(ctx context.Context, id mesh.WorkloadID) (net.Conn, func(), error) {
	ctx, cancel := context.WithTimeout(ctx, t.cfg.DialTimeout)
	defer cancel()
	return t.cfg.Dial(ctx, id)
}

// refuse tells the gateway the kind of the refusal; the reason stays here.
func (t *Tunnels) refuse(s Stream, gateway mesh.PeerID, id mesh.WorkloadID, err error) {
	t.cfg.Log.Debug("tunnel refused", "gateway", gateway, "workload", id, "err", err)
	_ = s.SetDeadline(time.Now().Add(t.cfg.HeaderTimeout))
	_, _ = s.Write([]byte{wire.TunnelRefusal(mesh.KindOf(err))})
	_ = s.CloseWrite()
}

// Drop ends every stream to the workload at once: it was unpublished or stopped.
// Streams that Allow is asked about later are refused by it, not by Drop.
func (t *Tunnels) Drop(id mesh.WorkloadID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for sp := range t.workloads[id] {
		sp.stream.Reset()
	}
}

// Streams is how many streams are served now.
func (t *Tunnels) Streams() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for _, c := range t.streams {
		n += c
	}
	return n
}

func (t *Tunnels) enter(gateway mesh.PeerID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.streams[gateway] >= t.cfg.MaxStreams {
		return false
	}
	t.streams[gateway]++
	return true
}

func (t *Tunnels) leave(gateway mesh.PeerID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.streams[gateway]--; t.streams[gateway] == 0 {
		delete(t.streams, gateway)
	}
}

func (t *Tunnels) track(id mesh.WorkloadID, sp *splice) {
	t.mu.Lock()
	defer t.mu.Unlock()
	set := t.workloads[id]
	if set == nil {
		set = map[*splice]struct{}{}
		t.workloads[id] = set
	}
	set[sp] = struct{}{}
}

func (t *Tunnels) untrack(id mesh.WorkloadID, sp *splice) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.workloads[id], sp)
	if len(t.workloads[id]) == 0 {
		delete(t.workloads, id)
	}
}
