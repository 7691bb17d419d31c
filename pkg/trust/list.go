package trust

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"peercompute/pkg/audit"
	"peercompute/pkg/identity"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

// MaxPeers bounds the trust list.
const MaxPeers = 10_000

// List is the trust list of one node. Reads are from memory and take effect with
// the write that preceded them; writes are on disk before they take effect.
type List struct {
	store *store.Store
	self  mesh.PeerID
	now   func() time.Time

	writing sync.Mutex // one change at a time; never held together with mu while doing I/O

	mu sync.RWMutex
	roll
	head      head
	expecting [2]time.Time // from when until when some invite is open
	door      door         // since and until when strangers may knock
	locked    *Lockdown    // nil = the list counts
}

// Open replays the trust log. It fails if the log is damaged.
func Open(st *store.Store, self mesh.PeerID, now func() time.Time) (*List, error) {
	l := &List{store: st, self: self, now: now}
	err := st.View(func(tx *store.Tx) (err error) {
		if l.roll, l.head, err = replay(tx); err == nil {
			l.locked, err = loadLockdown(tx)
		}
		if err == nil {
			l.door, err = loadDoor(tx)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	l.noteInvites()
	return l, nil
}

// Allowed reports whether p is on the list at all. Being on it allows a
// connection and nothing else.
func (l *List) Allowed(p mesh.PeerID) bool {
	_, ok := l.Get(p)
	return ok
}

// Get returns p's grant; the zero Grant, which denies, if there is none, it has
// ended, or the node is locked down. A key that was replaced has the grant of its
// successor for as long as both count; Grant.Peer says who that is.
func (l *List) Get(p mesh.PeerID) (Grant, bool) {
	now := l.now()
	l.mu.RLock()
	defer l.mu.RUnlock()
	g, ok := l.grants[l.current(p, now)]
	if !ok || l.locked != nil || g.Expired(now) {
		return Grant{}, false
	}
	return g, true
}

// Entry returns what is written about p, whether it counts now or not: for those
// who change it, not for those who decide by it.
func (l *List) Entry(p mesh.PeerID) (Grant, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	g, ok := l.grants[p]
	return g, ok
}

// Ended returns p's grant if it is on the list and has ended.
func (l *List) Ended(p mesh.PeerID) (Grant, bool) {
	g, ok := l.Entry(p)
	return g, ok && g.Expired(l.now())
}

// Live returns the grants that have not ended, sorted by name.
func (l *List) Live() []Grant {
	now := l.now()
	return slices.DeleteFunc(l.All(), func(g Grant) bool { return g.Expired(now) })
}

// All returns every grant, sorted by name.
func (l *List) All() []Grant {
	l.mu.RLock()
	defer l.mu.RUnlock()
	out := make([]Grant, 0, len(l.grants))
	for _, g := range l.grants {
		out = append(out, g)
	}
	slices.SortFunc(out, func(a, b Grant) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Find resolves a name or a unique prefix of an ID.
func (l *List) Find(ref string) (Grant, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	var found []Grant
	for id, g := range l.grants {
		if g.Name == ref {
			return g, nil
		}
		if ref != "" && strings.HasPrefix(id.String(), ref) {
			found = append(found, g)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return Grant{}, mesh.Errorf(mesh.NotFound, "no peer is called %q here", ref).WithHint("list them with: peerctl peers ls")
	}
	return Grant{}, mesh.Errorf(mesh.Conflict, "%q begins the IDs of %d peers", ref, len(found)).WithHint("give more of the ID, or the name")
}

// Name is the local name of a peer: "self", its name on the list, or its ID.
func (l *List) Name(p mesh.PeerID) string {
	if p == l.self {
		return "self"
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	if g, ok := l.grants[l.successor(p)]; ok {
		return g.Name
	}
	return p.String()
}

// Put adds or replaces a grant.
func (l *List) Put(ctx context.Context, g Grant) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	return l.put(ctx, audit.Local, g, nil)
}

// Edit is Put of what edit makes of p's entry, which nobody else changes meanwhile.
func (l *List) Edit(ctx context.Context, p mesh.PeerID, edit func(g Grant, known bool) (Grant, error)) (Grant, error) {
	l.writing.Lock()
	defer l.writing.Unlock()
	g, err := edit(l.Entry(p))
	if err != nil {
		return Grant{}, err
	}
	return g, l.put(ctx, audit.Local, g, nil)
}

// put is Put on actor's account, with something more in the same transaction;
// writing is held. A removal of that peer that was cut short is over with it: the next
// start must not end what it has from now on.
func (l *List) put(ctx context.Context, actor string, g Grant, also func(*store.Tx) error) error {
	g.Quota.Form = quotaForm
	if err := l.Check(g); err != nil {
		return err
	}
	l.mu.RLock()
	at := l.head
	l.mu.RUnlock()
	return l.commit(ctx, actor, at, entry{Op: opPut, Grant: g}, func(tx *store.Tx) error {
		if err := tx.Delete(store.TrustTasks, []byte(g.Peer)); err != nil || also == nil {
			return err
		}
		return also(tx)
	})
}

// Check says what would keep g from being added or replaced now.
func (l *List) Check(g Grant) error {
	if err := l.checkAlone(g); err != nil {
		return err
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	if _, was := l.retired[g.Peer]; was {
		return mesh.Errorf(mesh.Conflict, "that key of %s was replaced by another one", l.grants[l.successor(g.Peer)].Name).WithRule("rotation.retired").
			WithHint("it does not count any more; the present ID is in: peerctl peers ls")
	}
	for id, have := range l.grants {
		if have.Name == g.Name && id != g.Peer {
			return mesh.Errorf(mesh.Conflict, "another peer is called %q already", g.Name).WithHint("choose another --name")
		}
	}
	if _, exists := l.grants[g.Peer]; !exists && len(l.grants) >= MaxPeers {
		return mesh.Errorf(mesh.Quota, "the trust list is full: %d peers", MaxPeers).WithHint("remove some: peerctl peers remove")
	}
	return nil
}

// checkAlone says what is wrong with g, whoever else is on the list.
func (l *List) checkAlone(g Grant) error {
	if err := g.validate(); err != nil {
		return err
	}
	if err := identity.CheckPeer(g.Peer); err != nil {
		return err
	}
	if g.Peer == l.self {
		return mesh.Errorf(mesh.Invalid, "that is this machine's own ID").WithHint("add the ID that the other machine prints with: peerctl whoami")
	}
	return nil
}

// End makes it final that p's grant has ended, if it has. Only renewing it brings p back.
func (l *List) End(ctx context.Context, p mesh.PeerID) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	g, ended := l.Ended(p)
	if !ended || g.Ended {
		return nil
	}
	g.Ended = true
	return l.put(ctx, audit.Node, g, nil)
}

// removal is a removal whose later steps are not finished.
type removal struct {
	Peer mesh.PeerID `json:"peer"`
	Keep bool        `json:"keep"`
}

// Remove ends trust in p: durable first, then denied at once. The caller then
// carries out the rest and calls Finished; Unfinished lists what a crash left.
func (l *List) Remove(ctx context.Context, p mesh.PeerID, keep bool) (Grant, error) {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.RLock()
	g, ok := l.grants[p]
	at := l.head
	l.mu.RUnlock()
	if !ok {
		return Grant{}, mesh.Errorf(mesh.NotFound, "peer %s is not on the trust list", p)
	}
	return g, l.commit(ctx, audit.Local, at, entry{Op: opRemove, Grant: g}, func(tx *store.Tx) error {
		return tx.PutJSON(store.TrustTasks, []byte(p), removal{p, keep})
	})
}

// Finished records that p's connections and workloads are gone.
func (l *List) Finished(ctx context.Context, p mesh.PeerID) error {
	return l.store.Update(ctx, func(tx *store.Tx) error { return tx.Delete(store.TrustTasks, []byte(p)) })
}

// Unfinished calls fn for each removal that was recorded and not Finished.
func (l *List) Unfinished(fn func(p mesh.PeerID, keep bool)) error {
	var left []removal
	err := l.store.View(func(tx *store.Tx) error {
		return tx.Each(store.TrustTasks, nil, func(k, _ []byte) (bool, error) {
			var r removal
			if _, err := tx.GetJSON(store.TrustTasks, k, &r); err != nil {
				return false, err
			}
			left = append(left, r)
			return true, nil
		})
	})
	for _, r := range left {
		fn(r.Peer, r.Keep)
	}
	return err
}

func (l *List) commit(ctx context.Context, actor string, at head, e entry, also func(*store.Tx) error) error {
	e.Time = l.now().UTC()
	var next head
	err := l.store.Update(ctx, func(tx *store.Tx) (err error) {
		if next, err = appendEntry(tx, at, e); err != nil {
			return err
		}
		if also != nil {
			if err := also(tx); err != nil {
				return err
			}
		}
		return l.note(tx, actor, "grant."+e.Op, e.Grant.Peer.String(), e.describe())
	})
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.head = next
	l.apply(e)
	return nil
}
