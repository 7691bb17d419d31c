package main

import (
	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdSecretSet(a *app) *cobra.Command {
	var peer string
	cmd := &cobra.Command{
		Use:   "set NAME",
		Short: "Keep a secret, or another value of it, read from the input",
		Long: `Reads the value from the input, byte for byte, or asks for it on a terminal; it is never
an argument, which other users of this machine could see. At most 64 KiB. Containers
that run get another value when they start the next time: peerctl restart NAME.`,
		Example: `  peerctl secret set db-password --peer bob < password.txt`,
		Args:    takes("a NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			value, err := a.typedSecret(args[0])
			if err != nil {
				return err
			}
			return a.withClient(func(c *control.Client) error { return c.SetSecret(cmd.Context(), peer, args[0], value) })
		},
	}
	a.secretPeerFlag(cmd, &peer)
	return cmd
}
