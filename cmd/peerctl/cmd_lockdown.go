package main

import (
	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdLockdown(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "lockdown",
		Short:   "Deny everybody, close every connection, stop every workload",
		Example: "  peerctl lockdown",
		Args:    takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withClient(func(c *control.Client) error {
				l, err := c.Lockdown(cmd.Context())
				if err != nil {
					return err
				}
				if a.json() {
					return a.printJSON(l)
				}
				a.note("locked down; workloads told to stop here: %d. It stays so, also across restarts, until: peerctl unlock", len(l.Stopped))
				return nil
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
}
