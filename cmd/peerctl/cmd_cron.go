package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdCron(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cron",
		Short: "Queue a WASM program again and again",
		Long: `This machine's peerd queues the program on a peer, or here, whenever its schedule
says. What is missed while it is off, or the peer away, is made up for by one run,
as soon as that can be. See what came of them with peerctl job ls.`,
		Example: `  peerctl cron create nightly "30 4 * * *" backup.wasm --peer bob
  peerctl cron ls`,
		Args: cobra.ArbitraryArgs,
		RunE: onlySubcommands,
	}
	cmd.AddCommand(cmdCronCreate(a), cmdCronLs(a), cmdCronPause(a), cmdCronResume(a), cmdCronRm(a))
	return cmd
}

// eachCron does the same to several cron jobs and prints the name of each. What fails
// for one does not keep the others from it.
func (a *app) eachCron(names []string, do func(*control.Client, string) (control.Cron, error)) error {
	return a.withClient(func(c *control.Client) error {
		var failed []error
		for _, name := range names {
			cr, err := do(c, name)
			if err == nil && a.json() {
				err = a.printJSON(cr)
			} else if err == nil {
				err = a.println(cr.Name)
			}
			if err != nil {
				failed = append(failed, err)
			}
		}
		return errors.Join(failed...)
	})
}

// completeCrons completes the names of cron jobs.
func (a *app) completeCrons(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return a.fromNode(cmd, func(ctx context.Context, c *control.Client) ([]cobra.Completion, error) {
		var found []cobra.Completion
		list, err := c.Crons(ctx)
		for _, cr := range list {
			found = append(found, cobra.CompletionWithDesc(cr.Name, cr.Schedule+" on "+cr.Peer))
		}
		return found, err
	})
}
