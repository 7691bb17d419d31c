package main

import (
	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdUnlock(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "unlock",
		Short:   "End a lockdown",
		Example: "  peerctl unlock",
		Args:    takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withClient(func(c *control.Client) error {
				l, err := c.Unlock(cmd.Context())
				if err != nil {
					return err
				}
				if a.json() {
					return a.printJSON(l)
				}
				a.note("the trust list counts again; what was stopped stays stopped")
				return nil
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
}
