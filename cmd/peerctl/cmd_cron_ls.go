package main

import (
	"strconv"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdCronLs(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List cron jobs: when each is due, and what it queued last",
		Example: "  peerctl cron ls -o json",
		Args:    takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withClient(func(c *control.Client) error {
				list, err := c.Crons(cmd.Context())
				if err != nil {
					return err
				}
				if a.json() {
					fill(&list)
					return a.printJSON(list)
				}
				if len(list) == 0 {
					a.note(`no cron jobs; make one with: peerctl cron create NAME "30 4 * * *" FILE.wasm`)
					return nil
				}
				t := newTable(a.out, "NAME", "SCHEDULE", "PEER", "NEXT", "LAST JOB", "MISSED", "NOTE")
				for _, cr := range list {
					next := cr.Due.Local().Format("2006-01-02 15:04")
					if cr.Paused {
						next = "paused"
					}
					t.row(cr.Name, cr.Schedule, cr.Peer, next, shortID(cr.Job), strconv.Itoa(cr.Missed), cr.Failure)
				}
				return t.flush()
			})
		},
	}
}
