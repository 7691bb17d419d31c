package main

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdJobLs(a *app) *cobra.Command {
	var peer string
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List queued jobs and what came of them: yours, and those here",
		Example: `  peerctl job ls
  peerctl job ls --peer bob -o json`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.listJobs(cmd.Context(), peer) },
	}
	cmd.Flags().StringVar(&peer, "peer", "", "only those on this peer: its `NAME`, or self")
	completeFlag(cmd, "peer", a.completePeerFlag(cobra.CompletionWithDesc(self, "this machine")))
	return cmd
}

func (a *app) listJobs(ctx context.Context, peer string) error {
	return a.withClient(func(c *control.Client) error {
		list, err := c.Jobs(ctx, peer)
		if err != nil {
			return err
		}
		if a.json() {
			fill(&list)
			return a.printJSON(list)
		}
		if len(list) == 0 {
			a.note("no jobs; queue one with: peerctl job submit FILE.wasm")
			return nil
		}
		t := newTable(a.out, "ID", "NAME", "PEER", "OWNER", "STATE", "FUEL", "OUTPUT", "AGE", "NOTE")
		for _, j := range list {
			fuel, note := "", j.Reason
			if j.Exit != nil {
				fuel = strconv.FormatUint(j.Exit.Fuel, 10)
			}
			if j.Dropped {
				note = "output not kept any more"
			}
			t.row(shortID(j.ID), j.Name, j.Peer, j.Owner, jobState(j), fuel, formatSize(j.OutputSize), a.age(j.Submitted), note)
		}
		return t.flush()
	})
}
