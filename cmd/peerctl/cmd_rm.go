package main

import (
	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdRm(a *app) *cobra.Command {
	var peer string
	var force bool
	cmd := &cobra.Command{
		Use:     "rm WORKLOAD…",
		Aliases: []string{"remove"},
		Short:   "Remove workloads with all that is left of them",
		Example: `  peerctl rm hello
  peerctl rm -f hello   # stop it first`,
		Args: takes("a WORKLOAD (its name or the start of its ID)…"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.each(args, func(c *control.Client, ref string) (control.Workload, error) {
				return c.Remove(cmd.Context(), ref, peer, force)
			})
		},
		ValidArgsFunction: a.completeWorkloads,
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "stop it first if it runs")
	a.peerFlag(cmd, &peer)
	return cmd
}
