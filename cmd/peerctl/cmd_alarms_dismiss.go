package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdAlarmsDismiss(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "dismiss ID",
		Short:   "Forget an alarm that was looked at",
		Example: "  peerctl alarms dismiss 3",
		Args:    takes("the ID of an alarm (peerctl alarms)"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(func(c *control.Client) error {
				al, err := c.DismissAlarm(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				if a.json() {
					return a.printJSON(al)
				}
				return a.println(fmt.Sprint(al.ID))
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
}
