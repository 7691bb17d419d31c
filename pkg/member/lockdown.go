package member

import (
	"context"
	"fmt"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

// Lockdown denies everybody from the moment it is on disk, then closes every
// connection and stops everything. A restart changes nothing about it.
func (a *api) Lockdown(ctx context.Context) (control.Lockdown, error) {
	m := a.m
	m.removing.Lock()
	defer m.removing.Unlock()
	ctx = context.WithoutCancel(ctx) // once begun it is carried through
	at, err := m.Trust.Lock(ctx)
	if err != nil {
		return control.Lockdown{}, err
	}
	for _, g := range m.Trust.All() {
		if err := m.Net.Disconnect(g.Peer); err != nil {
			m.Log.Warn("cannot close a connection cleanly", "peer", g.Peer, "err", err)
		}
	}
	m.Net.DisconnectGuests()
	m.trustChanged()
	stopped, err := a.hooks.Halt(ctx)
	if err != nil {
		return control.Lockdown{}, fmt.Errorf("everybody is denied, but not all that runs here is ended: %w", err)
	}
	if stopped == nil {
		stopped = []mesh.WorkloadID{}
	}
	m.Log.Warn("locked down", "stopped", len(stopped))
	m.tell("lockdown", "", "")
	return control.Lockdown{Locked: true, Since: at.Since, Stopped: stopped}, nil
}

// Unlock makes the trust list count again. What was stopped stays so.
func (a *api) Unlock(ctx context.Context) (control.Lockdown, error) {
	m := a.m
	if err := m.Trust.Unlock(ctx); err != nil {
		return control.Lockdown{}, err
	}
	for _, g := range m.Trust.All() {
		m.Net.Learn(g.Peer, g.Addrs)
	}
	m.trustChanged()
	m.Log.Warn("unlocked: the trust list counts again")
	m.tell("unlock", "", "")
	return control.Lockdown{Stopped: []mesh.WorkloadID{}}, nil
}
