package main

import (
	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdRestart(a *app) *cobra.Command {
	var peer string
	cmd := &cobra.Command{
		Use:   "restart WORKLOAD…",
		Short: "End the run of workloads and begin another",
		Long: `Ends what runs, politely, and starts it again with the same image, limits and name.
One that was stopped or has ended is started too, if it still fits what its peer
grants. A container's scratch space begins empty.`,
		Example: `  peerctl restart web
  peerctl restart web db --peer bob`,
		Args:              takes("a WORKLOAD (its name or the start of its ID)…"),
		ValidArgsFunction: a.completeWorkloads,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.each(args, func(c *control.Client, ref string) (control.Workload, error) {
				return c.Restart(cmd.Context(), ref, peer)
			})
		},
	}
	a.peerFlag(cmd, &peer)
	return cmd
}
