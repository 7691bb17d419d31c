package main

import (
	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdUnpublish(a *app) *cobra.Command {
	var peer string
	cmd := &cobra.Command{
		Use:     "unpublish WORKLOAD…",
		Short:   "Withdraw the public URL of workloads; they go on running",
		Example: `  peerctl unpublish hello`,
		Args:    takes("a WORKLOAD (its name or the start of its ID)…"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.each(args, func(c *control.Client, ref string) (control.Workload, error) {
				return c.Unpublish(cmd.Context(), ref, peer)
			})
		},
		ValidArgsFunction: a.completeWorkloads,
	}
	a.peerFlag(cmd, &peer)
	return cmd
}
