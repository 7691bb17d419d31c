package trust

import (
	"context"
	"time"

	"peercompute/pkg/audit"
	"peercompute/pkg/identity"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
	"peercompute/pkg/wire"
)

// This file is what a change of a peer's key means for its grant: the new key has
// it from then on, the old one for as long as both count, and a key has one
// successor, the first that was heard of.

// The rules by which a rotation is refused.
const (
	RuleFork  = "rotation.fork"  // the key has another successor already
	RuleStale = "rotation.stale" // its number is not beyond the last one taken
	RuleOften = "rotation.often" // too many in a day
	RuleTaken = "rotation.taken" // the new key is known here already
)

// maxRotations bounds how often one peer may change its key in a day: each change is
// an entry of the log.
const maxRotations = 8

// retired is a key that was replaced.
type retired struct {
	next  mesh.PeerID // what replaced it
	at    time.Time
	until time.Time // until when it counts too
	ended bool      // it is written down that it does not count any more
}

// rotate takes in that one key replaces another, and with alone that no former one
// counts besides.
func (r roll) rotate(e entry) {
	delete(r.grants, e.Old)
	r.grants[e.Grant.Peer] = e.Grant
	r.retired[e.Old] = retired{next: e.Grant.Peer, at: e.Time, until: e.Until}
	if e.Alone {
		r.retire(e)
	}
}

// retire takes in that a former key does not count any more, and with alone none
// before it either.
func (r roll) retire(e entry) {
	ended := func(p mesh.PeerID) {
		was := r.retired[p]
		was.ended = true
		r.retired[p] = was
	}
	ended(e.Old)
	if e.Alone {
		for _, p := range r.former(e.Old) {
			ended(p)
		}
	}
}

// Succession is what a rotation came to here.
type Succession struct {
	Old, New mesh.PeerID // the key that was on the list, and the one that is now
	Until    time.Time   // until when Old counts too; not after now = not at all
	Changed  bool        // false = all of it was known
}

// current follows p to the key that is on the list, as far as each key on the way
// still counts. The caller holds mu.
func (r roll) current(p mesh.PeerID, now time.Time) mesh.PeerID {
	for range len(r.retired) + 1 {
		was, ok := r.retired[p]
		if !ok {
			return p
		}
		if was.ended || !now.Before(was.until) {
			return ""
		}
		p = was.next
	}
	return ""
}

// successor is current without regard to time: whose key p was.
func (r roll) successor(p mesh.PeerID) mesh.PeerID {
	for range len(r.retired) + 1 {
		was, ok := r.retired[p]
		if !ok {
			return p
		}
		p = was.next
	}
	return p
}

// former lists the keys that came before p, directly and further back.
func (r roll) former(p mesh.PeerID) (out []mesh.PeerID) {
	for next := []mesh.PeerID{p}; len(next) > 0; next = next[1:] {
		for old, to := range r.retired {
			if to.next == next[0] {
				out, next = append(out, old), append(next, old)
			}
		}
	}
	return out
}

// Resolve is the key that is on the list now for the peer that p names or named.
func (l *List) Resolve(p mesh.PeerID) mesh.PeerID {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.successor(p)
}

// forget drops the former keys of a peer that is not on the list any more.
func (r roll) forget(p mesh.PeerID) {
	for _, old := range r.former(p) {
		delete(r.retired, old)
	}
}

// Succeed takes in a lineage: a peer on the list has another key now. Steps that are
// known change nothing; each new one moves the grant on, in one transaction with
// also, which moves what else belongs to the peer. A second successor for a key, or
// one whose number is not beyond the last, is refused.
func (l *List) Succeed(ctx context.Context, lineage wire.Lineage, also func(tx *store.Tx, from, to mesh.PeerID) error) (Succession, error) {
	steps, err := lineage.Open()
	if err != nil {
		return Succession{}, err
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	var out Succession
	for i, r := range steps {
		l.mu.RLock()
		g, listed := l.grants[r.Old]
		was, replaced := l.retired[r.Old]
		l.mu.RUnlock()
		switch {
		case listed:
			until, err := l.step(ctx, g, r, lineage.Steps[i], also)
			if err != nil {
				return out, err
			}
			if out.Old == "" {
				out.Old = r.Old
			}
			out.New, out.Until, out.Changed = r.New, until, true
		case replaced && was.next != r.New:
			return out, mesh.Errorf(mesh.Conflict, "the key of %s that was replaced before names a second successor", l.Name(r.Old)).WithRule(RuleFork).
				WithHint("somebody else has that key: ask %s by another channel which one is right; if it is not the one that counts here: peerctl peers remove %s, then invite anew", l.Name(r.Old), l.Name(r.Old))
		case replaced:
			out.Old, out.New, out.Until = r.Old, r.New, was.until
			if was.ended {
				out.Until = time.Time{}
			}
		}
	}
	if out.New == "" {
		return out, mesh.Errorf(mesh.Untrusted, "none of the keys in that lineage is on this machine's trust list").WithRule("trust")
	}
	return out, nil
}

// step moves a grant on to the next key; writing is held.
func (l *List) step(ctx context.Context, g Grant, r wire.Rotation, proof wire.Step, also func(tx *store.Tx, from, to mesh.PeerID) error) (until time.Time, err error) {
	now := l.now()
	if err := l.mayFollow(g, r, now); err != nil {
		return until, err
	}
	// The other side's clock may be wrong: never longer than agreed from here on.
	overlap := time.Duration(r.Overlap) * time.Millisecond
	if until = time.UnixMilli(r.Time).Add(overlap); until.After(now.Add(overlap)) {
		until = now.Add(overlap)
	}
	next := g
	next.Peer, next.Origin, next.Rotation = r.New, g.First(), r.Seq
	l.mu.RLock()
	at := l.head
	l.mu.RUnlock()
	e := entry{Op: opRotate, Grant: next, Old: r.Old, Until: until.UTC(), Alone: r.Compromised, Proof: &proof}
	return until, l.commit(ctx, r.Old.String(), at, e, func(tx *store.Tx) error { return also(tx, r.Old, r.New) })
}

// mayFollow judges a rotation of a key that is on the list.
func (l *List) mayFollow(g Grant, r wire.Rotation, now time.Time) error {
	if err := identity.CheckPeer(r.New); err != nil {
		return err
	}
	refuse := func(k mesh.Kind, rule, format string, args ...any) error {
		return mesh.Errorf(k, format, args...).WithRule(rule)
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	_, listed := l.grants[r.New]
	_, replaced := l.retired[r.New]
	lately := 0
	for _, p := range l.former(g.Peer) {
		if now.Before(l.retired[p].at.Add(wire.MaxOverlap)) {
			lately++
		}
	}
	switch {
	case r.Seq <= g.Rotation:
		return refuse(mesh.Replayed, RuleStale, "the rotation has number %d, and %d was taken already", r.Seq, g.Rotation)
	case r.New == l.self || listed || replaced:
		return refuse(mesh.Conflict, RuleTaken, "the new key is known to this machine already")
	case lately >= maxRotations:
		return refuse(mesh.Quota, RuleOften, "the key was changed %d times within a day", lately)
	}
	return nil
}

// end writes down that a replaced key does not count any more, so that no clock
// brings it back; writing is held.
func (l *List) end(ctx context.Context, old mesh.PeerID) error {
	l.mu.RLock()
	was, ok := l.retired[old]
	g := l.grants[l.successor(old)]
	at := l.head
	l.mu.RUnlock()
	if !ok || was.ended {
		return nil
	}
	return l.commit(ctx, audit.Node, at, entry{Op: opRetire, Grant: g, Old: old}, nil)
}

// Lapse ends the replaced keys whose time is over. It returns those that had not
// been ended, and when the next one is due; zero = none is.
func (l *List) Lapse(ctx context.Context) (ended []mesh.PeerID, next time.Time, err error) {
	l.writing.Lock()
	defer l.writing.Unlock()
	now := l.now()
	l.mu.RLock()
	for p, r := range l.retired {
		switch {
		case r.ended:
		case !now.Before(r.until):
			ended = append(ended, p)
		case next.IsZero() || r.until.Before(next):
			next = r.until
		}
	}
	l.mu.RUnlock()
	for i, p := range ended {
		if err := l.end(ctx, p); err != nil {
			return ended[:i], next, err
		}
	}
	return ended, next, nil
}

// Former lists the keys that p, who is on the list, had before.
func (l *List) Former(p mesh.PeerID) []mesh.PeerID {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.former(p)
}

// Listed reports whether p is on the list, whether it counts now or not.
func (l *List) Listed(p mesh.PeerID) bool {
	_, ok := l.Entry(p)
	return ok
}

// describe is what the audit log says of an entry besides the peer.
func (e entry) describe() string {
	switch e.Op {
	case opRotate:
		return e.Grant.Name + ": the key takes the place of " + e.Old.String()
	case opRetire:
		return e.Grant.Name + ": the former key " + e.Old.String() + " does not count any more"
	}
	return e.Grant.describe()
}
