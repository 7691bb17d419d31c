package member

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"peercompute/pkg/alarm"
	"peercompute/pkg/audit"
	"peercompute/pkg/control"
	"peercompute/pkg/identity"
	"peercompute/pkg/mesh"
	"peercompute/pkg/request"
	"peercompute/pkg/store"
	"peercompute/pkg/wire"
)

// This file changes this node's own key. The steps are: make the new key; sign that
// it follows the old one, with both; tell the peers that answer; make the new key
// the node's, in one transaction; start the network part again under it. Peers that
// did not answer are told by the courier afterwards (see courier.go). A crash before
// the transaction is resumed with the same new key, because some may know it already.

// ErrRestart is what Run returns when the node is to be opened again: its key has
// changed.
var ErrRestart = errors.New("the node's key has changed; it starts again with the new one")

const (
	tellAtOnce = 16
	tellEach   = 8 * time.Second
	tellAll    = 12 * time.Second
)

// Rotate gives the node a new key.
func (a *api) Rotate(ctx context.Context, in control.Rotate) (control.Rotation, error) {
	m := a.m
	if !m.rotating.TryLock() {
		return control.Rotation{}, mesh.Errorf(mesh.Conflict, "a change of the key is under way")
	}
	defer m.rotating.Unlock()
	overlap := in.Overlap
	if in.Compromised {
		overlap = 0
	} else if overlap < time.Minute || overlap > wire.MaxOverlap {
		return control.Rotation{}, mesh.Errorf(mesh.Invalid, "both keys count for %s; from 1m to %s is possible", overlap, wire.MaxOverlap).
			WithHint("if the old key may be in other hands: peerctl identity rotate --compromised")
	}
	ctx = context.WithoutCancel(ctx) // once begun it is carried through
	c, err := m.beginChange(ctx, overlap, in.Compromised)
	if err != nil {
		return control.Rotation{}, err
	}
	return m.carryOut(ctx, c)
}

// beginChange makes the new key and records the change.
func (m *Member) beginChange(ctx context.Context, overlap time.Duration, compromised bool) (keyChange, error) {
	all, err := m.changes()
	if err != nil {
		return keyChange{}, err
	}
	now, seq, lately := m.Now().UTC(), uint64(1), 0
	for _, c := range all {
		if !c.Switched {
			return keyChange{}, mesh.Errorf(mesh.Conflict, "a change of the key is under way")
		}
		seq = c.Seq + 1
		if now.Sub(c.Began) < wire.MaxOverlap {
			lately++
		}
	}
	if lately >= maxChanges {
		return keyChange{}, mesh.Errorf(mesh.Quota, "the key was changed %d times within a day; peers take no more", lately).WithRule("rotation.often")
	}
	next, err := identity.Prepare(m.Home)
	if err != nil {
		return keyChange{}, err
	}
	step, err := wire.SealRotation(m.Key.Private, next.Private, wire.Rotation{
		Version: wire.Version, Old: m.Key.ID, New: next.ID, Seq: seq, Time: now.UnixMilli(), Overlap: overlap.Milliseconds(), Compromised: compromised,
	})
	if err != nil {
		return keyChange{}, err
	}
	c := keyChange{Seq: seq, Old: m.Key.ID, New: next.ID, Step: step, Began: now, Until: now.Add(overlap), Compromised: compromised}
	return c, m.Store.Update(ctx, func(tx *store.Tx) error {
		for _, g := range m.Trust.Live() {
			if err := tx.Put(store.Keys, owedKey(seq, g.Peer), []byte{1}); err != nil {
				return err
			}
		}
		return c.put(tx)
	})
}

// maxChanges is how often the key may change in a day; peers have the same limit.
const maxChanges = 8

// carryOut tells the peers and makes the new key the node's.
func (m *Member) carryOut(ctx context.Context, c keyChange) (control.Rotation, error) {
	all, err := m.changes()
	if err != nil {
		return control.Rotation{}, err
	}
	out := control.Rotation{Old: c.Old, New: c.New, Until: c.Until, Compromised: c.Compromised, Told: []string{}, Waiting: []control.Untold{}}
	limit, cancel := context.WithTimeout(ctx, tellAll)
	defer cancel()
	owed, err := m.untold(c.Seq)
	if err != nil {
		return out, err
	}
	failures := m.announce(limit, c.Seq, lineage(all, c.Seq), m.Client, owed)
	for _, p := range owed {
		if err, failed := failures[p]; failed {
			out.Waiting = append(out.Waiting, control.Untold{Peer: m.Trust.Name(p), Reason: mesh.AsError(err).Msg})
		} else {
			out.Told = append(out.Told, m.Trust.Name(p))
		}
	}
	slices.Sort(out.Told)
	slices.SortFunc(out.Waiting, func(a, b control.Untold) int { return strings.Compare(a.Peer, b.Peer) })
	m.Log.Info("changing the node's key", "old", c.Old, "new", c.New, "told", len(out.Told), "waiting", len(out.Waiting))
	return out, m.switchKey(ctx, c)
}

// announce sends a lineage to peers and records who took it. It returns why the others
// did not.
func (m *Member) announce(ctx context.Context, seq uint64, l wire.Lineage, client *request.Client, peers []mesh.PeerID) map[mesh.PeerID]error {
	var mu sync.Mutex
	failures := map[mesh.PeerID]error{}
	var g errgroup.Group
	g.SetLimit(tellAtOnce)
	for _, p := range peers {
		g.Go(func() error {
			one, cancel := context.WithTimeout(ctx, tellEach)
			defer cancel()
			err := client.Do(one, p, wire.VerbRotate, l, nil)
			if err == nil {
				err = m.acknowledged(context.WithoutCancel(ctx), seq, p)
			}
			if err != nil {
				mu.Lock()
				failures[p] = err
				mu.Unlock()
				m.refusedKey(ctx, p, err)
			}
			return nil
		})
	}
	_ = g.Wait() // errors are in failures
	return failures
}

// switchKey is the point of no return: from this transaction on the node is the one
// with the new key, and all that was its own is that one's.
func (m *Member) switchKey(ctx context.Context, c keyChange) error {
	c.Switched = true
	err := m.Store.Update(ctx, func(tx *store.Tx) error {
		if err := m.rekey(tx, c.Old, c.New); err != nil {
			return err
		}
		if err := c.put(tx); err != nil {
			return err
		}
		if err := tx.Rebind(c.New); err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{
			Time: m.Now(), Actor: audit.Local, Action: "identity.rotate", Subject: c.New.String(), Outcome: audit.Done,
			Detail: fmt.Sprintf("takes the place of %s; compromised: %t", c.Old, c.Compromised),
		})
	})
	if err != nil {
		return fmt.Errorf("cannot make the new key this node's: %w", err)
	}
	m.restart() // whatever else fails: the state is the new key's
	if err := identity.Promote(m.Home, c.Seq); err != nil {
		return fmt.Errorf("the new key counts, but its file is not in place yet: %w", err)
	}
	return nil
}

// restart makes Run end with ErrRestart.
func (m *Member) restart() {
	select {
	case m.again <- struct{}{}:
	default:
	}
}

// finishChange carries on with a change that a crash cut short.
func (m *Member) finishChange(ctx context.Context) error {
	m.rotating.Lock()
	defer m.rotating.Unlock()
	all, err := m.changes()
	if err != nil || len(all) == 0 {
		return err
	}
	c := all[len(all)-1]
	if c.Switched {
		if c.Closed {
			return nil
		}
		// What was written under the old ID while the node was about to change it.
		return m.Store.Update(ctx, func(tx *store.Tx) error { return m.rekey(tx, c.Old, c.New) })
	}
	next, err := identity.Next(m.Home)
	if err != nil || next.ID != c.New {
		m.raise(ctx, alarm.Alarm{
			Kind: "self.rotation-lost", Text: "the new key that was being introduced to the peers is lost; this node keeps its old one",
			Hint: "peers that took the new key deny this node soon: let each run peerctl peers remove for it, and join anew",
		})
		return m.Store.Update(ctx, func(tx *store.Tx) error { return tx.Delete(store.Keys, changeKey(c.Seq)) })
	}
	_, err = m.carryOut(context.WithoutCancel(ctx), c)
	return err
}

// rekey moves what is recorded under one ID to another.
func (m *Member) rekey(tx *store.Tx, from, to mesh.PeerID) error {
	m.mu.Lock()
	fs := slices.Clone(m.onRekey)
	m.mu.Unlock()
	for _, f := range fs {
		if err := f(tx, from, to); err != nil {
			return err
		}
	}
	return nil
}

// OnRekey registers a function that moves what is recorded under one ID to another,
// when a peer or this node changes its key. It must only touch tx.
func (m *Member) OnRekey(f func(tx *store.Tx, from, to mesh.PeerID) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.onRekey = append(m.onRekey, f)
}

// OnRekeyed registers a function that hears of it once it is on disk.
func (m *Member) OnRekeyed(f func(from, to mesh.PeerID)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.onRekeyed = append(m.onRekeyed, f)
}

// rotationWarnings says what is under way about this node's key.
func (m *Member) rotationWarnings(s *control.Status) {
	all, err := m.changes()
	if err != nil {
		m.Log.Error("cannot read the changes of the key", "err", err)
		return
	}
	for _, c := range all {
		if c.Closed {
			continue
		}
		owed, err := m.untold(c.Seq)
		if err != nil {
			m.Log.Error("cannot read who was told of the new key", "err", err)
		}
		var names []string
		for _, p := range owed {
			names = append(names, m.Trust.Name(p))
		}
		if len(names) > 0 {
			slices.Sort(names)
			s.Warnings = append(s.Warnings, fmt.Sprintf("the key changed on %s; not told yet: %s", c.Began.Format("2006-01-02 15:04 MST"), strings.Join(names, ", ")))
		}
	}
}
