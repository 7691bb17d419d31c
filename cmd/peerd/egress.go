package main

import (
	"peercompute/pkg/admission"
	"peercompute/pkg/member"
	"peercompute/pkg/mesh"
)

// mayConnect asks the trust list at each HTTP request of a guest, so that a grant
// that is changed or taken back counts at once. What runs for this machine's own
// owner may reach what it lists.
func mayConnect(m *member.Member) func(mesh.PeerID, mesh.Spec) error {
	return func(owner mesh.PeerID, s mesh.Spec) error {
		if owner == m.Key.ID {
			return nil
		}
		g, ok := m.Trust.Get(owner)
		if !ok {
			return mesh.Errorf(mesh.Denied, "its owner is not trusted any more").WithRule("trust")
		}
		return admission.MayConnect(g, s).Refusal(owner)
	}
}
