package trust

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"peercompute/pkg/audit"
	"peercompute/pkg/identity"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

// This file takes the list out for a backup and puts it into a new state file.

// Snapshot is what the list says, without how it came to say it.
type Snapshot struct {
	Grants  []Grant   `json:"grants"`
	Retired []Former  `json:"retired,omitempty"` // keys that were replaced: they must not come back
	Locked  *Lockdown `json:"locked,omitempty"`
}

// Former is a key that another one took the place of.
type Former struct {
	Key   mesh.PeerID `json:"key"`
	Next  mesh.PeerID `json:"next"`
	At    time.Time   `json:"at"`
	Until time.Time   `json:"until,omitzero"` // until when it counts too
	Ended bool        `json:"ended,omitempty"`
}

// maxFormer bounds the replaced keys of a snapshot.
const maxFormer = 10 * MaxPeers

// Snapshot returns what the list says now.
func (l *List) Snapshot() Snapshot {
	s := Snapshot{Grants: l.All()}
	l.mu.RLock()
	defer l.mu.RUnlock()
	for p, r := range l.retired {
		s.Retired = append(s.Retired, Former{p, r.next, r.at, r.until, r.ended})
	}
	slices.SortFunc(s.Retired, func(a, b Former) int {
		return cmp.Or(a.At.Compare(b.At), strings.Compare(string(a.Key), string(b.Key)))
	})
	if l.locked != nil {
		at := *l.locked
		s.Locked = &at
	}
	return s
}

// Restore fills an empty list with a snapshot, as new entries of its log, in one
// transaction with also. Each grant and key is checked as if it were added now.
func (l *List) Restore(ctx context.Context, s Snapshot, also func(*store.Tx) error) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if seq, _ := l.Head(); seq != 0 {
		return mesh.Errorf(mesh.Conflict, "the trust list is not empty")
	}
	entries, err := l.entries(s)
	if err != nil {
		return err
	}
	var at head
	err = l.store.Update(ctx, func(tx *store.Tx) (err error) {
		at = head{}
		for _, e := range entries {
			if at, err = appendEntry(tx, at, e); err != nil {
				return err
			}
			if err := l.note(tx, audit.Local, "grant."+e.Op, e.Grant.Peer.String(), e.describe()); err != nil {
				return err
			}
		}
		if s.Locked != nil {
			if err := tx.PutJSON(store.Meta, keyLockdown, s.Locked); err != nil {
				return err
			}
		}
		return also(tx)
	})
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.head, l.locked = at, s.Locked
	for _, e := range entries {
		l.apply(e)
	}
	return nil
}

// entries are those that say what the snapshot says.
func (l *List) entries(s Snapshot) (out []entry, err error) {
	scratch := &List{self: l.self, now: l.now, roll: newRoll()}
	now := l.now().UTC()
	names := map[string]bool{}
	for _, g := range s.Grants {
		g.Quota.Form = quotaForm
		err := scratch.checkAlone(g)
		switch {
		case err != nil:
			return nil, err
		case names[g.Name] || scratch.Listed(g.Peer):
			return nil, mesh.Errorf(mesh.Invalid, "%q is on the list twice", g.Name)
		case len(out) >= MaxPeers:
			return nil, mesh.Errorf(mesh.Quota, "more than %d peers", MaxPeers)
		}
		if g.Origin != "" {
			if err := identity.CheckPeer(g.Origin); err != nil {
				return nil, err
			}
		}
		names[g.Name] = true
		e := entry{Op: opPut, Time: now, Grant: g}
		scratch.apply(e)
		out = append(out, e)
	}
	chain, err := scratch.inOrder(s.Retired)
	if err != nil {
		return nil, err
	}
	for _, f := range chain {
		g := scratch.grants[scratch.successor(f.Key)]
		g.Peer = f.Next
		out = append(out, entry{Op: opRotate, Time: f.At, Grant: g, Old: f.Key, Until: f.Until})
	}
	for _, f := range chain {
		if f.Ended {
			out = append(out, entry{Op: opRetire, Time: now, Grant: scratch.grants[scratch.successor(f.Key)], Old: f.Key})
		}
	}
	return out, nil
}

// inOrder checks the replaced keys and returns them so that each comes behind those
// that it replaced. It leaves them in l.retired.
func (l *List) inOrder(all []Former) ([]Former, error) {
	if len(all) > maxFormer {
		return nil, mesh.Errorf(mesh.Quota, "more than %d replaced keys", maxFormer)
	}
	wrong := func(f Former) error {
		return mesh.Errorf(mesh.Invalid, "the replaced key %s does not lead to a peer on the list", f.Key)
	}
	byKey, before := map[mesh.PeerID]Former{}, map[mesh.PeerID]int{}
	for _, f := range all {
		if err := identity.CheckPeer(f.Key); err != nil {
			return nil, err
		}
		if _, twice := byKey[f.Key]; twice || l.Listed(f.Key) || f.Key == l.self {
			return nil, wrong(f)
		}
		byKey[f.Key] = f
		before[f.Next]++
	}
	var ready, out []Former
	for _, f := range all {
		if _, on := byKey[f.Next]; !on && !l.Listed(f.Next) {
			return nil, wrong(f)
		}
		l.retired[f.Key] = retired{f.Next, f.At, f.Until, f.Ended}
		if before[f.Key] == 0 {
			ready = append(ready, f)
		}
	}
	for len(ready) > 0 {
		f := ready[0]
		ready, out = ready[1:], append(out, f)
		if before[f.Next]--; before[f.Next] == 0 {
			if next, on := byKey[f.Next]; on {
				ready = append(ready, next)
			}
		}
	}
	if len(out) != len(all) { // what is left goes round
		return nil, mesh.Errorf(mesh.Invalid, "the replaced keys go round in a circle")
	}
	return out, nil
}
