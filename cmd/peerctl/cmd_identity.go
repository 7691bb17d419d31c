package main

import "github.com/spf13/cobra"

func cmdIdentity(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "identity",
		Short: "Change this node's key, or make a backup of it",
		Long: `The node's key is who it is to its peers. It can be replaced by a new one, which
the old one names as its successor.`,
		Example: `  peerctl identity rotate
  peerctl identity rotate --compromised
  peerctl identity export --out alice.backup`,
		Args: cobra.ArbitraryArgs,
		RunE: onlySubcommands,
	}
	cmd.AddCommand(cmdIdentityRotate(a), cmdIdentityExport(a))
	return cmd
}
