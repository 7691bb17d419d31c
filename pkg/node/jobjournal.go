package node

import (
	"context"

	"peercompute/pkg/audit"
	"peercompute/pkg/jobs"
	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

// This file puts on record what is done to queued jobs here.

// workload is a job as the records speak of it.
func workload(j jobs.Job) mesh.Workload {
	return mesh.Workload{ID: j.ID, Owner: j.Owner, Spec: j.Spec, Created: j.Submitted}
}

// cancelAll ends every job that which says, on record, and lists them.
func (n *Node) cancelAll(ctx context.Context, why string, which func(jobs.Job) bool) ([]mesh.WorkloadID, error) {
	return n.queue.CancelAll(ctx, which, func(tx *store.Tx, j jobs.Job) error {
		return audit.Append(tx, n.entry(audit.Local, "cancel-job", workload(j), why))
	})
}
