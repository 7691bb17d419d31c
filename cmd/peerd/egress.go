package main

import (
	"peercompute/pkg/admission"
	"peercompute/pkg/mesh"
)

// mayConnect asks the trust list at each HTTP request of a guest, so that a grant
// that is changed or taken back counts at once. What runs for this machine's own
// owner may reach what it lists. A guest's owner may have changed its key since the
// guest was started.
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
