package main

import (
	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdCronCreate(a *app) *cobra.Command {
	var f workFlags
	cmd := &cobra.Command{
		Use:   "create NAME SCHEDULE FILE.wasm [ARGS…]",
		Short: "Queue a WASM program whenever a schedule says",
		Long: `SCHEDULE is the five fields of crontab (minute, hour, day of the month, month, day
of the week), or @hourly, @daily, @weekly, @monthly, "@every 90m". Times are those of
this machine's zone; another one goes in front: "CRON_TZ=Europe/Lisbon 0 6 * * *".
The input is read to its end now, unless it is a terminal, and given to every run.`,
		Example: `  peerctl cron create nightly "30 4 * * *" backup.wasm --peer bob
  peerctl cron create count "@every 90m" count.wasm < words.txt`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 3 {
				return usagef("peerctl cron create needs a NAME, a SCHEDULE and a FILE.wasm").hint(`for example: peerctl cron create nightly "30 4 * * *" backup.wasm`)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			spec, mod, err := a.jobModule(&f, args[2], args[3:])
			if err != nil {
				return err
			}
			defer mod.Close()
			return a.withClient(func(c *control.Client) error {
				if err := mod.upload(cmd.Context(), c, a.progress()); err != nil {
					return err
				}
				order := control.NewCron{Name: args[0], Schedule: args[1], Peer: f.peer, Spec: spec}
				if hasInput(a.in) {
					in, err := c.UploadInput(cmd.Context(), a.in)
					if err != nil {
						return err
					}
					order.Input = in.Digest
				}
				cr, err := c.CreateCron(cmd.Context(), order)
				if err != nil {
					return err
				}
				if a.json() {
					return a.printJSON(cr)
				}
				a.note("next on %s at %s", cr.Peer, cr.Due.Local().Format("2006-01-02 15:04 MST"))
				return a.println(cr.Name)
			})
		},
	}
	a.addWorkFlags(cmd, &f)
	return cmd
}
