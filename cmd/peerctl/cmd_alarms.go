package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdAlarms(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "alarms",
		Short: "List what the owner of this machine must look at",
		Long: `Alarms are raised by what no honest node or disk does: a log that lost what it
held, two nodes under one identity, a second successor for one key. They stay,
also across restarts, until they are dismissed.`,
		Example: `  peerctl alarms
  peerctl alarms dismiss 3`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return onlySubcommands(cmd, args)
			}
			return a.withClient(func(c *control.Client) error {
				all, err := c.Alarms(cmd.Context())
				if err != nil {
					return err
				}
				if a.json() {
					fill(&all)
					return a.printJSON(all)
				}
				if len(all) == 0 {
					a.note("no alarm")
					return nil
				}
				t := newTable(a.out, "ID", "KIND", "PEER", "LAST", "TIMES", "WHAT")
				for _, al := range all {
					t.row(fmt.Sprint(al.ID), al.Kind, al.Peer, a.age(al.Last)+" ago", fmt.Sprint(al.Count), al.Text)
				}
				if err := t.flush(); err != nil {
					return err
				}
				for _, al := range all {
					if al.Hint != "" {
						a.note("%d, next: %s", al.ID, al.Hint)
					}
				}
				return nil
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.AddCommand(cmdAlarmsDismiss(a))
	return cmd
}
