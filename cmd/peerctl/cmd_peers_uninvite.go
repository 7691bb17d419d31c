package main

import (
	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdPeersUninvite(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "uninvite ID",
		Short:   "Withdraw an invite before it is used",
		Example: "  peerctl peers uninvite 1a2b3c4d",
		Args:    takes("the ID of an invite (peerctl peers invites)"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(func(c *control.Client) error {
				i, err := c.WithdrawInvite(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				if a.json() {
					return a.printJSON(i)
				}
				return a.println(i.ID)
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
}
