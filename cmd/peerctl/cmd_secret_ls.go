package main

import (
	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdSecretLs(a *app) *cobra.Command {
	var peer string
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List your secrets by name, and which workloads get them",
		Example: `  peerctl secret ls --peer bob`,
		Args:    takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withClient(func(c *control.Client) error {
				all, err := c.Secrets(cmd.Context(), peer)
				if err != nil {
					return err
				}
				return a.listSecrets(all)
			})
		},
	}
	a.secretPeerFlag(cmd, &peer)
	return cmd
}
