package main

import (
	"peercompute/pkg/admission"
	"peercompute/pkg/mesh"
)

// mayConnect asks the trust list at each HTTP request of a guest, and at each
// connection of a container, so that a grant that is changed or taken back counts at
// once. What runs for this machine's own
// owner may reach what it lists. A workload's owner may have changed its key since the
// workload was started.
func (rt *runtimes) mayConnect(owner mesh.PeerID, s mesh.Spec) error {
	m := rt.member.Load()
	if m.Mine(owner) {
		return nil
	}
	g, ok := m.Trust.Get(m.Trust.Resolve(owner))
	if !ok {
		return mesh.Errorf(mesh.Denied, "its owner is not trusted any more").WithRule("trust")
	}
	return admission.MayConnect(g, s).Refusal(g.Peer)
}

// ownerNow is who the owner of a workload is now, under the key that it has now.
func (rt *runtimes) ownerNow(owner mesh.PeerID) mesh.PeerID {
	m := rt.member.Load()
	if m.Mine(owner) {
		return m.Key.ID
	}
	return m.Trust.Resolve(owner)
}
