package main

import (
	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdSecretRm(a *app) *cobra.Command {
	var peer string
	cmd := &cobra.Command{
		Use:     "rm NAME",
		Aliases: []string{"remove"},
		Short:   "Forget a secret that no workload gets",
		Example: `  peerctl secret rm db-password --peer bob`,
		Args:    takes("a NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(func(c *control.Client) error { return c.RemoveSecret(cmd.Context(), peer, args[0]) })
		},
	}
	a.secretPeerFlag(cmd, &peer)
	return cmd
}
