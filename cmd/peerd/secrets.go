package main

import (
	"context"

	"peercompute/pkg/mesh"
	"peercompute/pkg/node"
)

// secretsOf reads the secrets that a workload gets, of who its owner is now.
func (rt *runtimes) secretsOf(ctx context.Context, w mesh.Workload) (map[string][]byte, error) {
	m := rt.member.Load()
	w.Owner = rt.ownerNow(w.Owner)
	return node.SecretsOf(ctx, m.Store, m.Home, w)
}
