package main

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

// quorumFlags are those of a run on several peers.
type quorumFlags struct{ replicas, quorum int }

func (q *quorumFlags) add(cmd *cobra.Command) {
	countVar(cmd.Flags(), &q.replicas, "replicas", "", "run it on so many trusted peers at once, and return what a quorum agrees on")
	countVar(cmd.Flags(), &q.quorum, "quorum", "", "so many of the replicas must agree (default: more than half)")
}

// check judges these flags beside the others, and sets the default.
func (q *quorumFlags) check(f *runFlags) error {
	switch {
	case q.replicas == 0 && q.quorum == 0:
		return nil
	case q.replicas < 2:
		return usagef("a quorum takes two replicas at least").hint("such as: --replicas 3 --quorum 2")
	case f.peer != "" || f.any || f.detach:
		return usagef("--replicas contradicts --peer, --any and --detach: the nearest peers that accept it run it, while you wait")
	case q.quorum == 0:
		q.quorum = q.replicas/2 + 1
	}
	if q.quorum > q.replicas || 2*q.quorum <= q.replicas {
		return usagef("of %d replicas more than half must agree, and no more than all: %d to %d", q.replicas, q.replicas/2+1, q.replicas)
	}
	return nil
}

// runQuorum runs a job on several peers, and passes on what a quorum agrees on.
func (a *app) runQuorum(ctx context.Context, f *runFlags, path string, args []string) error {
	spec, mod, err := a.jobModule(&f.workFlags, path, args)
	if err != nil {
		return err
	}
	defer mod.Close()
	return a.withClient(func(c *control.Client) error {
		if err := mod.upload(ctx, c, a.progress()); err != nil {
			return err
		}
		order := control.RunQuorum{Spec: spec, Replicas: f.replicas, Quorum: f.quorumFlags.quorum}
		if hasInput(a.in) {
			in, err := c.UploadInput(ctx, a.in)
			if err != nil {
				return err
			}
			order.Input = in.Digest
		}
		end, err := c.RunQuorum(ctx, order, control.JobStreams{Stdout: a.terminalOutput(a.out), Stderr: a.terminalOutput(a.err)})
		if err != nil {
			return err
		}
		a.reportReplicas(end.Quorum)
		if !end.Quorum.Reached() {
			return mesh.Errorf(mesh.Conflict, "no %d of %d peers agree; there is no result", f.quorumFlags.quorum, f.replicas).WithRule("run.quorum").
				WithHint("what each of them signed is kept: peerctl receipts ls")
		}
		if err := writeReceipt(f.receipt, end.Receipt); err != nil {
			return err
		}
		return a.ended(spec.Name, end)
	})
}

// reportReplicas names the peers that did not agree; as JSON all of them.
func (a *app) reportReplicas(q *control.Quorum) {
	if q == nil {
		return
	}
	if a.json() {
		fill(&q.Replicas)
		enc := json.NewEncoder(a.err)
		enc.SetEscapeHTML(false)
		_ = enc.Encode(map[string]*control.Quorum{"quorum": q})
		return
	}
	for _, r := range q.Replicas {
		switch {
		case r.State == control.ReplicaFailed:
			a.note("%s failed: %s", r.Peer, r.Reason)
		case r.State == control.ReplicaDiffers:
			a.note("%s differs: %s", r.Peer, strings.Join(r.Differs, "; "))
		case r.State == control.ReplicaLate:
			a.note("%s was not waited for; what it signs is kept: peerctl receipts ls", r.Peer)
		case r.State == control.ReplicaAlone:
			a.note("%s agrees with no other", r.Peer)
		case !q.Reached():
			a.note("%s agrees with %d of the others", r.Peer, q.Agreed-1)
		}
	}
}
