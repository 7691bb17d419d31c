// Package member is what every node of the mesh has, whether it runs workloads or
// is a gateway: a home directory, a key, a state file, the trust list, the network
// and the local API for these. What a node does beyond that is given to Run.
package member

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"peercompute/pkg/admission"
	"peercompute/pkg/alarm"
	"peercompute/pkg/audit"
	"peercompute/pkg/control"
	"peercompute/pkg/event"
	"peercompute/pkg/heartbeat"
	"peercompute/pkg/identity"
	"peercompute/pkg/mesh"
	"peercompute/pkg/peernet"
	"peercompute/pkg/request"
	"peercompute/pkg/store"
	"peercompute/pkg/trust"
	"peercompute/pkg/wire"
)

// Config is what Open needs.
type Config struct {
	Home      string   // created, 0700, if it is not there
	Listen    []string // multiaddrs
	Role      string   // "peer" or "gateway"
	Version   string
	NewState  bool          // make a new state file where the old one is missing
	OldState  bool          // accept a state file that is not the latest
	Heartbeat time.Duration // between two to one peer; 0 = heartbeat.DefaultInterval
	Knock     time.Duration // let strangers knock this long from the start of Run; 0 = as it was
	Announce  string        // tell the local network that this node is there, under this name; empty = do not
	Log       *slog.Logger
	Now       func() time.Time // nil = time.Now

	WorkFactor int // of the passphrases of backups; 0 = backup.WorkFactor. Tests take less
}

// Member is an open node. Its fields are set by Open and not changed after.
type Member struct {
	Config
	Key     *identity.Key
	Store   *store.Store
	Trust   *trust.List
	Gate    *admission.Gate
	Net     *peernet.Net
	Client  *request.Client
	Alarms  *alarm.Book
	Heart   *heartbeat.Heart
	Audit   *audit.Log
	Events  *event.Bus
	Started time.Time

	unlock func() error
	room   *room // where those who knock wait

	Origin mesh.PeerID          // the first ID of this node
	former map[mesh.PeerID]bool // those it had before the present one

	rotating sync.Mutex    // one change of this node's key at a time
	again    chan struct{} // Run is to end with ErrRestart
	lapsing  chan struct{} // a key was replaced: look anew when it lapses

	removing sync.Mutex   // one removal at a time
	step     func(string) // a test's view of a removal's steps; nil = nobody looks

	mu      sync.Mutex
	onPeer  []func(mesh.PeerID, bool)
	onTrust []func()
	free    func() *wire.Capacity // Hooks.Free

	onRekey   []func(tx *store.Tx, from, to mesh.PeerID) error
	onRekeyed []func(from, to mesh.PeerID)
	telling   uint64 // the change of this node's key that peers are told of; 0 = none
}

// Hooks are the parts of a role that trust changes reach.
type Hooks struct {
	// Withdraw ends what a removed peer has here (routes, workloads unless keep).
	// It may be called again after a crash.
	Withdraw func(ctx context.Context, p mesh.PeerID, keep bool) ([]mesh.WorkloadID, error)
	// Halt ends whatever runs or is routed here. It may be called again.
	Halt func(ctx context.Context) ([]mesh.WorkloadID, error)
	// Usage says what each peer that uses anything here uses of its grant.
	Usage func() (map[mesh.PeerID]control.Usage, error)
	// Status completes the status of the node.
	Status func(*control.Status)
	// Checkup looks at what the role has besides; may be nil.
	Checkup func(context.Context) []control.Check
	// Free is what could still be lent now; nil if the node lends nothing.
	Free func() *wire.Capacity
}

// Open takes the home for itself and reads what is in it. It starts nothing that
// others can reach. Close undoes it.
func Open(cfg Config) (_ *Member, err error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	m := &Member{
		Config: cfg, Started: cfg.Now(), Events: event.New(cfg.Now), room: newRoom(),
		again: make(chan struct{}, 1), lapsing: make(chan struct{}, 1),
	}
	if err := os.MkdirAll(cfg.Home, 0o700); err != nil {
		return nil, fmt.Errorf("cannot create the home directory: %w", err)
	}
	if err := checkHome(cfg.Home); err != nil {
		return nil, err
	}
	if m.unlock, err = lockHome(cfg.Home); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			m.Close()
		}
	}()
	if err := checkFinished(cfg.Home); err != nil {
		return nil, err
	}
	if err := m.openState(); err != nil {
		return nil, err
	}
	m.Audit = audit.New(audit.Config{Store: m.Store, Now: cfg.Now})
	if m.Trust, err = trust.Open(m.Store, m.Key.ID, cfg.Now); err != nil {
		return nil, err
	}
	if m.Gate, err = admission.NewGate(admission.Config{Store: m.Store, Trust: m.Trust, Self: m.Key.ID, Now: cfg.Now}); err != nil {
		return nil, err
	}
	m.Net, err = peernet.New(peernet.Config{Key: m.Key.Private, Listen: cfg.Listen, Gate: m.Trust, Log: cfg.Log, Expecting: m.expecting, OnConnect: m.connected})
	if err != nil {
		return nil, err
	}
	for _, g := range m.Trust.All() {
		m.Net.Learn(g.Peer, g.Addrs)
	}
	m.Client = request.NewClient(m.Key, m.Net, cfg.Now)
	if m.Alarms, err = alarm.Open(m.Store, cfg.Now); err != nil {
		return nil, err
	}
	if err := m.openHeart(); err != nil {
		return nil, err
	}
	return m, nil
}

func checkHome(home string) error {
	info, err := os.Stat(home)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o077 != 0 {
		if err := os.Chmod(home, 0o700); err != nil {
			return mesh.Errorf(mesh.Invalid, "the home directory %s is open to others (mode %04o)", home, info.Mode().Perm()).
				WithHint("chmod 700 %s", home).Because(err)
		}
	}
	return nil
}

// openState makes or opens key and state file, which belong together. A key
// without its state is a loss that only the owner may declare accepted; a state
// file that is not bound to a key yet is what a crash in the first start leaves.
func (m *Member) openState() error {
	path := filepath.Join(m.Home, store.FileName)
	haveKey, err := identity.Exists(m.Home)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	missing := errors.Is(err, fs.ErrNotExist)
	switch {
	case missing || err == nil && info.Size() == 0: // an empty file would pass for a new one
		if haveKey && !m.NewState {
			return mesh.Errorf(mesh.Invalid, "the state file %s is missing but the node key is there", path).
				WithHint("restore it from a backup; or start once with --new-state, which forgets all peers and workloads and voids every request that was signed for the old state")
		}
		if err := store.Create(path); err != nil {
			return fmt.Errorf("cannot create the state file: %w", err)
		}
	case err != nil:
		return err
	}
	open := store.Open
	if m.OldState {
		open = store.OpenOld
	}
	if m.Store, err = open(path); err != nil {
		return err
	}
	if old := m.Store.Old(); old != nil {
		m.Log.Warn("an older state was accepted; peers removed since may be trusted again: look through peerctl peers ls", "why", old)
	}
	if from := m.Store.From(); from > 0 && from < store.Version {
		m.Log.Info("brought the state file to a newer version; older programs refuse it from now on", "from", from, "to", store.Version)
	}
	if !haveKey {
		bound, err := m.Store.Bound()
		if err != nil {
			return err
		}
		if bound {
			return mesh.Errorf(mesh.Invalid, "the node key %s is missing but its state file is there", filepath.Join(m.Home, identity.KeyFile)).
				WithHint("restore the key from a backup; or move the whole home away to begin as a new node")
		}
		if m.Key, err = identity.Create(m.Home); err != nil {
			return err
		}
	}
	if err := m.loadKey(); err != nil {
		return err
	}
	return m.Store.Bind(context.Background(), m.Key.ID)
}

// Close lets go of the home. Run must have returned.
func (m *Member) Close() error {
	var errs []error
	if m.Net != nil {
		m.Net.Close()
	}
	if m.Store != nil {
		errs = append(errs, m.Store.Close())
	}
	if m.unlock != nil {
		errs = append(errs, m.unlock())
	}
	return errors.Join(errs...)
}

// OnPeer registers a function that hears of connections that come and go. It must
// not block.
func (m *Member) OnPeer(f func(p mesh.PeerID, up bool)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.onPeer = append(m.onPeer, f)
}

// OnTrust registers a function that hears that the trust list changed.
func (m *Member) OnTrust(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.onTrust = append(m.onTrust, f)
}

func (m *Member) connected(p mesh.PeerID, up bool) {
	m.mu.Lock()
	fs := m.onPeer
	m.mu.Unlock()
	name := "down"
	if up {
		name = "up"
	}
	m.Events.Publish(event.Event{Type: event.Connection, Name: name, Peer: p})
	for _, f := range fs {
		f(p, up)
	}
}

func (m *Member) trustChanged() {
	m.mu.Lock()
	fs := m.onTrust
	m.mu.Unlock()
	for _, f := range fs {
		f()
	}
}

// Run serves requests and the local API until ctx ends or a part fails, then
// stops them from the edge inwards. parts run beside them. ready is called once
// the node can be reached.
func (m *Member) Run(ctx context.Context, handlers map[wire.Verb]request.Handler, w control.Workloads, h Hooks, ready func(), parts ...func(context.Context) error) error {
	handlers = maps.Clone(handlers)
	if handlers == nil {
		handlers = map[wire.Verb]request.Handler{}
	}
	handlers[wire.VerbRotate] = m.onRotate
	request.NewServer(request.Config{Key: m.Key, Net: m.Net, Gate: m.Gate, Store: m.Store, Now: m.Now, Log: m.Log, Handlers: handlers, Audit: m.Audit, Events: m.Events})
	m.Net.HandleGuest(wire.ProtocolJoin, m.Trust.Expecting, m.onJoin)
	m.setFree(h.Free)
	m.Net.Handle(wire.ProtocolHeartbeat, m.onHeartbeat)
	m.Net.Handle(wire.ProtocolLineage, m.onLineage)
	m.Net.HandleGuest(wire.ProtocolKnock, m.knockable, m.onKnock)
	if m.Knock > 0 {
		if _, err := m.Trust.LetKnock(ctx, m.Knock); err != nil {
			return err
		}
	}
	if err := m.resume(ctx, h); err != nil {
		return err
	}
	socket, err := control.Listen(m.Home)
	if err != nil {
		return err
	}
	api := &api{m: m, hooks: h}
	server := control.NewServer(control.Config{Home: m.Home, Members: api, Workloads: w, Log: m.Log})

	g, ctx := errgroup.WithContext(ctx)
	listening := make(chan struct{})
	g.Go(func() error { return m.Net.Run(ctx, func() { close(listening) }) })
	g.Go(func() error { return m.Audit.Run(ctx) })
	g.Go(func() error {
		select {
		case <-listening: // the API answers only once addresses are known
		case <-ctx.Done():
			return socket.Close()
		}
		if ready != nil {
			ready()
		}
		return server.Run(ctx, socket)
	})
	g.Go(func() error {
		select {
		case <-m.Store.Failed():
			return mesh.Errorf(mesh.Internal, "the state file cannot be written; stopping").Because(m.Store.Err())
		case <-ctx.Done():
			return nil
		}
	})
	if m.Announce != "" {
		g.Go(func() error {
			select {
			case <-listening:
				return m.Net.Announce(ctx, m.Announce)
			case <-ctx.Done():
				return nil
			}
		})
	}
	g.Go(func() error {
		select {
		case <-m.again:
			return ErrRestart
		case <-ctx.Done():
			return nil
		}
	})
	for _, part := range append(parts, m.Heart.Run, m.expire, m.lapse, m.introduce) {
		g.Go(func() error { return part(ctx) })
	}
	return g.Wait()
}

// resume finishes removals that a crash cut short, before anything else happens.
func (m *Member) resume(ctx context.Context, h Hooks) error {
	var left []func() error
	err := m.Trust.Unfinished(func(p mesh.PeerID, keep bool) {
		left = append(left, func() error {
			if _, err := h.Withdraw(ctx, p, keep); err != nil {
				return err
			}
			return m.Trust.Finished(ctx, p)
		})
	})
	for _, f := range left {
		err = errors.Join(err, f())
	}
	if err != nil {
		return fmt.Errorf("cannot finish the removal of a peer: %w", err)
	}
	if _, locked := m.Trust.Locked(); locked {
		m.Log.Warn("locked down: nobody is allowed anything until peerctl unlock")
		if _, err := h.Halt(ctx); err != nil {
			return fmt.Errorf("cannot stop what runs under lockdown: %w", err)
		}
	}
	return nil
}
