package main

import (
	"time"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdPause(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "pause [DURATION]",
		Short: "Refuse peers' new work for a while, or until you resume",
		Long: `Refuses what peers want to start here from now on, with the reason and the time
it opens again. What runs already goes on, and your own work is taken as ever.`,
		Example: `  peerctl pause 2h
  peerctl pause`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var d time.Duration
			if len(args) > 0 {
				var err error
				if d, err = time.ParseDuration(args[0]); err != nil || d <= 0 {
					return usagef("%q is not a time", args[0]).hint("such as 30m or 2h; none at all means until: peerctl resume")
				}
			}
			return a.withClient(func(c *control.Client) error {
				p, err := c.Pause(cmd.Context(), d)
				if err != nil {
					return err
				}
				if a.json() {
					return a.printJSON(p)
				}
				if p.Until.IsZero() {
					a.note("peers' new work is refused until: peerctl resume")
				} else {
					a.note("peers' new work is refused until %s, or: peerctl resume", p.Until.Local().Format("2006-01-02 15:04"))
				}
				return nil
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
}
