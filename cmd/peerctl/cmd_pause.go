package main

import (
	"time"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdPause(a *app) *cobra.Command {
	var then string
	cmd := &cobra.Command{
		Use:   "pause [DURATION]",
		Short: "Refuse peers' new work for a while, or until you resume",
		Long: `Refuses what peers want to start here from now on, with the reason and the time
it opens again. What runs already goes on, unless --then says otherwise: pause
freezes containers, ends services that keep no state (visitors get 503) and lets
jobs go on; stop ends all of it, and starts it again when the pause is over. Your
own work is taken as ever. The hours of "peerctl lend --when" count besides.`,
		Example: `  peerctl pause 2h
  peerctl pause --then stop
  peerctl pause 30m --then pause`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p := control.Pause{Then: then}
			if len(args) > 0 {
				var err error
				if p.For, err = parseSpan(args[0]); err != nil {
					return usagef("%q is not a time", args[0]).hint("such as 30m, 2h or 3d; none at all means until: peerctl resume")
				}
			}
			return a.withClient(func(c *control.Client) error {
				s, err := c.Pause(cmd.Context(), p)
				if err != nil {
					return err
				}
				if a.json() {
					return a.printJSON(s)
				}
				a.note("%s", a.lendingLine(s))
				if s.Opens.IsZero() {
					a.note("peers' new work is refused until: peerctl resume")
				} else {
					a.note("peers' new work is refused until %s, or: peerctl resume", a.moment(s.Opens))
				}
				return nil
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	thenVar(cmd, cmd.Flags(), &then)
	return cmd
}

// moment writes a time for people, in local time.
func (a *app) moment(t time.Time) string {
	t = t.Local()
	if d := t.Sub(a.now()); d < 20*time.Hour && d > -time.Hour {
		return t.Format("15:04")
	}
	return t.Format("2006-01-02 15:04")
}
