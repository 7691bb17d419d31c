package main

import (
	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdCronResume(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "resume NAME…",
		Short:             "Let a paused cron job go on, with its next time",
		Example:           "  peerctl cron resume nightly",
		Args:              takes("a NAME…"),
		ValidArgsFunction: a.completeCrons,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.eachCron(args, func(c *control.Client, name string) (control.Cron, error) { return c.ResumeCron(cmd.Context(), name) })
		},
	}
}
