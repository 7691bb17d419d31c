package main

import (
	"github.com/spf13/cobra"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

func cmdPeersApprove(a *app) *cobra.Command {
	var f grantFlags
	var in control.Approve
	cmd := &cobra.Command{
		Use:   "approve FINGERPRINT",
		Short: "Trust one who knocks, after comparing the fingerprint",
		Long: `Trusts the stranger who waits with this fingerprint, and tells it so. Type what the
other person reads out to you: that is the comparison which keeps others out. Only
the whole fingerprint will do. --allow says what it may do here.`,
		Example: `  peerctl peers approve fv7w-fahd-vv8n-vfvj --name alice --allow deploy --cpus 2 --memory 1G
  peerctl peers approve fv7w-fahd-vv8n-vfvj`,
		Args: takes("the FINGERPRINT that the other person reads out"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if in.Name != "" && !mesh.ValidLabel(in.Name) {
				return usagef("--name %s: names are a-z, 0-9 and inner -, at most %d characters", in.Name, mesh.MaxName)
			}
			in.Change = f.change(cmd)
			return a.withClient(func(c *control.Client) error {
				p, err := c.ApproveKnock(cmd.Context(), args[0], in)
				if err != nil {
					return err
				}
				return a.showPeer(p)
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions, // completing it would take the place of comparing it
	}
	cmd.Flags().StringVar(&in.Name, "name", "", "local `NAME` for it (default: as it calls itself)")
	addGrantFlags(cmd, &f)
	return cmd
}
