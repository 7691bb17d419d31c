package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdPeersInvites(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "invites",
		Short:   "List the invites that are open here",
		Example: "  peerctl peers invites",
		Args:    takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withClient(func(c *control.Client) error {
				all, err := c.Invites(cmd.Context())
				if err != nil {
					return err
				}
				if a.json() {
					fill(&all)
					return a.printJSON(all)
				}
				if len(all) == 0 {
					a.note("no invite is open; make one with: peerctl peers invite")
					return nil
				}
				t := newTable(a.out, "ID", "USES LEFT", "ALLOW", "NAME", "ENDS IN")
				for _, i := range all {
					t.row(i.ID, fmt.Sprint(i.Uses), strings.Join(i.Allow, ","), i.Name, time.Until(i.Expires).Round(time.Second).String())
				}
				return t.flush()
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
}
