package member

import (
	"context"
	"fmt"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

// The steps of a removal, in their order. A crash behind any of them is made up
// for at the next start (see resume).
const (
	stepDenied       = "denied"       // on disk, and refused from now on
	stepDisconnected = "disconnected" // streams reset, connections closed
	stepForgotten    = "forgotten"    // what was pending with it is void
	stepWithdrawn    = "withdrawn"    // its names are gone, its workloads told to stop
	stepFinished     = "finished"
)

// RemovePeer ends trust in the order that leaves no gap: durable, denied, streams
// reset, connections closed, pending requests void, names withdrawn, workloads
// stopped unless keep.
func (a *api) RemovePeer(ctx context.Context, ref string, keep bool) (control.RemovedPeer, error) {
	m := a.m
	m.removing.Lock()
	defer m.removing.Unlock()
	found, err := m.Trust.Find(ref)
	if err != nil {
		return control.RemovedPeer{}, err
	}
	ctx = context.WithoutCancel(ctx) // once begun it is carried through
	former := m.Trust.Former(found.Peer)
	g, err := m.Trust.Remove(ctx, found.Peer, keep)
	if err != nil {
		return control.RemovedPeer{}, err
	}
	m.at(stepDenied)
	if err := m.Net.Disconnect(g.Peer); err != nil {
		m.Log.Warn("cannot close a removed peer's connections cleanly", "peer", g.Peer, "err", err)
	}
	for _, p := range former {
		m.dropKey(p)
	}
	m.at(stepDisconnected)
	m.Gate.Forget(g.Peer)
	m.Client.Forget(g.Peer)
	m.trustChanged()
	m.tell("grant.remove", g.Peer, g.Name)
	m.at(stepForgotten)
	stopped, err := a.hooks.Withdraw(ctx, g.Peer, keep)
	if err != nil {
		return control.RemovedPeer{}, fmt.Errorf("peer %s is denied, but not all that it has here is ended: %w", g.Name, err)
	}
	if stopped == nil {
		stopped = []mesh.WorkloadID{}
	}
	m.at(stepWithdrawn)
	if err := m.Heart.Forget(ctx); err != nil { // made up for with the next heartbeats
		m.Log.Warn("cannot forget what was seen of a removed peer", "peer", g.Peer, "err", err)
	}
	m.Log.Info("removed a peer", "peer", g.Peer, "name", g.Name, "stopped", len(stopped), "keep", keep)
	err = m.Trust.Finished(ctx, g.Peer)
	m.at(stepFinished)
	return control.RemovedPeer{ID: g.Peer, Name: g.Name, Stopped: stopped}, err
}

func (m *Member) at(step string) {
	if m.step != nil {
		m.step(step)
	}
}
