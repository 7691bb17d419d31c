package main

import (
	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdCronPause(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "pause NAME…",
		Short:             "Let a cron job wait until it is resumed",
		Example:           "  peerctl cron pause nightly",
		Args:              takes("a NAME…"),
		ValidArgsFunction: a.completeCrons,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.eachCron(args, func(c *control.Client, name string) (control.Cron, error) { return c.PauseCron(cmd.Context(), name) })
		},
	}
}
