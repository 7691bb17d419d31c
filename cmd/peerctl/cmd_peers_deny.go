package main

import (
	"context"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdPeersDeny(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "deny FINGERPRINT",
		Short:   "Send one who knocks away, for a day",
		Example: "  peerctl peers deny fv7w-fahd-vv8n-vfvj",
		Args:    takes("the FINGERPRINT of one who knocks (peerctl peers pending)"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(func(c *control.Client) error {
				p, err := c.DenyKnock(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				if a.json() {
					fill(&p.Addrs)
					return a.printJSON(p)
				}
				a.note("sent away; its knocks are refused for a day")
				return a.println(p.Fingerprint)
			})
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return a.fromNode(cmd, func(ctx context.Context, c *control.Client) ([]cobra.Completion, error) {
				k, err := c.Knocks(ctx)
				var found []cobra.Completion
				for _, p := range k.Pending {
					found = append(found, cobra.CompletionWithDesc(p.Fingerprint, p.Name))
				}
				return found, err
			})
		},
	}
}
