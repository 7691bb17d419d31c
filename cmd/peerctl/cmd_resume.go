package main

import (
	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdResume(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "resume",
		Short:   "Take peers' new work again",
		Example: "  peerctl resume",
		Args:    takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withClient(func(c *control.Client) error {
				p, err := c.Resume(cmd.Context())
				if err != nil {
					return err
				}
				if a.json() {
					return a.printJSON(p)
				}
				if !p.Open {
					a.note("the pause is over, but this machine's hours go on: %s", a.lendingLine(p))
					a.note("change them with: peerctl lend --when always")
					return nil
				}
				a.note("peers' new work is taken again")
				return nil
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
}
