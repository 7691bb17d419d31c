package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdHistory(a *app) *cobra.Command {
	var peer string
	cmd := &cobra.Command{
		Use:   "history WORKLOAD",
		Short: "List the revisions of a workload, and what became of each",
		Long: `Each deploy of a name makes a revision; the last ten are remembered. A revision is
serving, coming, replaced, failed or given up.`,
		Example: `  peerctl history hello
  peerctl history hello -o json`,
		Args:              takes("a WORKLOAD (its name or the start of its ID)"),
		ValidArgsFunction: a.completeWorkloads,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.history(cmd.Context(), args[0], peer) },
	}
	a.peerFlag(cmd, &peer)
	return cmd
}

func (a *app) history(ctx context.Context, ref, peer string) error {
	return a.withClient(func(c *control.Client) error {
		list, err := c.History(ctx, ref, peer)
		if err != nil {
			return err
		}
		if a.json() {
			fill(&list)
			return a.printJSON(list)
		}
		t := newTable(a.out, "REVISION", "OUTCOME", "IMAGE", "DIGEST", "BY", "AGE", "NOTE")
		for _, v := range list {
			note := v.Note
			if v.Failure != "" {
				note = v.Failure
			}
			t.row(fmt.Sprint(v.Number), v.Outcome, v.Image, shortDigest(v.Digest), v.By, a.age(v.Time), note)
		}
		return t.flush()
	})
}
