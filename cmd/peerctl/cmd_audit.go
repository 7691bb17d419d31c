package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

func cmdAudit(a *app) *cobra.Command {
	q := control.AuditQuery{Last: 50}
	var since time.Duration
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Show the record of all that was decided and done here, and verify it",
		Long: `Shows the audit log: who did what on this node, by which rule, and what was
refused. Each entry is chained to the one before and on disk before its effect.
Refusals that come often are one entry and a count. With -o json each entry is
one line.`,
		Example: `  peerctl audit -n 20
  peerctl audit --peer bob --since 24h
  peerctl audit verify`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if since > 0 {
				q.Since = a.now().Add(-since)
			}
			return a.audit(cmd.Context(), q)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	flags := cmd.Flags()
	countVar(flags, &q.Last, "last", "n", "how many of the last entries; 0 for all (default 50)")
	flags.StringVar(&q.Peer, "peer", "", "only what this peer did or what was done to it: its `NAME` or ID; or local")
	durationVar(flags, &since, "since", "only what is not older")
	completeFlag(cmd, "peer", a.completePeerFlag(cobra.CompletionWithDesc("local", "the person at this machine")))
	cmd.AddCommand(cmdAuditVerify(a), cmdAuditExport(a))
	return cmd
}

func (a *app) audit(ctx context.Context, q control.AuditQuery) error {
	return a.withClient(func(c *control.Client) error {
		if a.json() {
			return c.Audit(ctx, q, func(e control.AuditEntry) error { return a.printLine(e) })
		}
		t := newTable(a.out, "SEQ", "TIME", "WHO", "WHAT", "ON", "OUTCOME", "RULE", "DETAIL")
		n := 0
		err := c.Audit(ctx, q, func(e control.AuditEntry) error {
			n++
			t.row(fmt.Sprint(e.Seq), e.Time.Local().Format("01-02 15:04:05"), e.Actor, e.Action, subject(e.Subject), outcome(e), e.Rule, e.Detail)
			return nil
		})
		if err != nil || n == 0 {
			return err
		}
		return t.flush()
	})
}

// subject shortens what is an ID.
func subject(s string) string {
	if id, err := mesh.ParseWorkloadID(s); err == nil {
		return shortID(id)
	}
	if id, err := mesh.ParsePeerID(s); err == nil {
		return shortPeer(id)
	}
	return s
}

func outcome(e control.AuditEntry) string {
	if e.Count > 0 {
		return fmt.Sprintf("%s %d more", e.Outcome, e.Count)
	}
	return e.Outcome
}
