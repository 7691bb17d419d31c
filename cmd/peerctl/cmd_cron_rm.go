package main

import (
	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdCronRm(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "rm NAME…",
		Aliases:           []string{"remove"},
		Short:             "Remove cron jobs; what they queued stays",
		Example:           "  peerctl cron rm nightly",
		Args:              takes("a NAME…"),
		ValidArgsFunction: a.completeCrons,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.eachCron(args, func(c *control.Client, name string) (control.Cron, error) { return c.RemoveCron(cmd.Context(), name) })
		},
	}
}
