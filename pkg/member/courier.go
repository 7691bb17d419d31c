package member

import (
	"bytes"
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"peercompute/pkg/identity"
	"peercompute/pkg/mesh"
	"peercompute/pkg/peernet"
	"peercompute/pkg/request"
	"peercompute/pkg/store"
)

// The courier tells peers of a new key that did not answer when the key changed.
// They know this node by its old key only, so it goes to them under that one: with a
// network end of its own that listens nowhere and reaches nobody but them.

const (
	courierFirst = 2 * time.Second
	courierMost  = 5 * time.Minute
)

// introduce finishes a change of keys that was cut short, then tells those of it who
// were not reached.
func (m *Member) introduce(ctx context.Context) error {
	if err := m.finishChange(ctx); err != nil {
		return err
	}
	all, err := m.changes()
	if err != nil {
		return err
	}
	if n := len(all); n > 0 && !all[n-1].Closed {
		m.mu.Lock()
		m.telling = all[n-1].Seq
		m.mu.Unlock()
	}
	return m.courier(ctx)
}

// courier runs until nobody is left to be told, or ctx ends.
func (m *Member) courier(ctx context.Context) error {
	pause := courierFirst
	for {
		waiting, err := m.deliver(ctx)
		if err != nil && ctx.Err() == nil {
			m.Log.Error("cannot tell the peers of the new key; trying again", "err", err)
		}
		if !waiting && err == nil {
			return nil // a later change starts the node anew, and this with it
		}
		t := time.NewTimer(time.Duration(float64(pause) * (0.8 + 0.4*rand.Float64())))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil
		}
		pause = min(2*pause, courierMost)
	}
}

// deliver makes one round for each change that is not closed, and closes those that
// everybody was told of or whose time is over. It reports whether some are left.
func (m *Member) deliver(ctx context.Context) (waiting bool, err error) {
	all, err := m.changes()
	if err != nil {
		return true, err
	}
	for _, c := range all {
		if c.Closed || !c.Switched {
			continue
		}
		left, err := m.untold(c.Seq)
		if err != nil {
			return true, err
		}
		open := m.Now().Before(c.tellUntil())
		if len(left) > 0 && open {
			if left, err = m.deliverOne(ctx, c, all, left); err != nil {
				return true, err
			}
		}
		if len(left) > 0 && open {
			waiting = true
			continue
		}
		if err := m.closeChange(ctx, c, left); err != nil {
			return true, err
		}
	}
	return waiting, nil
}

func (m *Member) deliverOne(ctx context.Context, c keyChange, all []keyChange, left []mesh.PeerID) ([]mesh.PeerID, error) {
	key, err := identity.Former(m.Home, c.Seq)
	if err != nil {
		return left, err
	}
	net, err := peernet.New(peernet.Config{Key: key.Private, Gate: only(left), Log: m.Log})
	if err != nil {
		return left, err
	}
	defer net.Close()
	for _, p := range left {
		if g, ok := m.Trust.Get(p); ok { // nobody while the node is locked down
			net.Learn(p, g.Addrs)
		}
	}
	failures := m.announce(ctx, c.Seq, lineage(all, all[len(all)-1].Seq), request.NewClient(key, net, m.Now), left)
	return slices.DeleteFunc(left, func(p mesh.PeerID) bool { return failures[p] == nil }), nil
}

// closeChange ends the telling, and deletes the old key.
func (m *Member) closeChange(ctx context.Context, c keyChange, left []mesh.PeerID) error {
	for _, p := range left {
		m.Log.Warn("a peer was not told of this node's new key; it hears of it when it dials this node", "peer", p, "name", m.Trust.Name(p))
	}
	m.mu.Lock()
	if m.telling == c.Seq {
		m.telling = 0
	}
	m.mu.Unlock()
	c.Closed = true
	err := m.Store.Update(ctx, func(tx *store.Tx) error {
		var owed [][]byte
		err := tx.Each(store.Keys, changeKey(c.Seq), func(k, _ []byte) (bool, error) {
			mine := bytes.HasPrefix(k, changeKey(c.Seq))
			if mine && len(k) > 8 {
				owed = append(owed, bytes.Clone(k))
			}
			return mine, nil
		})
		for _, k := range owed {
			if err == nil {
				err = tx.Delete(store.Keys, k)
			}
		}
		if err != nil {
			return err
		}
		return c.put(tx)
	})
	if err != nil {
		return err
	}
	return identity.DropFormer(m.Home, c.Seq)
}

// only is a gate that lets some peers through.
type only []mesh.PeerID

func (o only) Allowed(p mesh.PeerID) bool { return slices.Contains(o, p) }

// known takes in that a peer answers this node under its present key.
func (m *Member) known(ctx context.Context, p mesh.PeerID) {
	m.mu.Lock()
	seq := m.telling
	m.mu.Unlock()
	if seq == 0 {
		return
	}
	var owed bool
	err := m.Store.View(func(tx *store.Tx) error {
		all, err := readChanges(tx)
		for _, c := range all {
			owed = owed || !c.Closed && tx.Get(store.Keys, owedKey(c.Seq, p)) != nil
		}
		return err
	})
	if err == nil && owed {
		err = m.acknowledged(context.WithoutCancel(ctx), seq, p)
	}
	if err != nil {
		m.Log.Debug("cannot note that a peer knows the new key", "peer", p, "err", err)
	}
}
