package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdLogs(a *app) *cobra.Command {
	var peer string
	var follow bool
	var tail int
	cmd := &cobra.Command{
		Use:   "logs WORKLOAD",
		Short: "Print what a workload wrote",
		Long: `Prints the stdout and stderr of a workload, also after it ended. On a terminal,
control sequences other than colours are left out.`,
		Example: `  peerctl logs hello
  peerctl logs -f -n 20 hello`,
		Args:              takes("a WORKLOAD (its name or the start of its ID)"),
		ValidArgsFunction: a.completeWorkloads,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.logs(cmd.Context(), args[0], peer, follow, tail)
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&follow, "follow", "f", false, "go on until it ends or Ctrl-C")
	countVar(flags, &tail, "tail", "n", "how many of the last lines (default all)")
	a.peerFlag(cmd, &peer)
	return cmd
}

func (a *app) logs(ctx context.Context, ref, peer string, follow bool, tail int) error {
	return a.withClient(func(c *control.Client) error {
		log, err := c.Logs(ctx, ref, peer, follow, tail)
		if err != nil {
			return err
		}
		defer log.Close()
		_, err = io.Copy(a.terminalOutput(a.out), log)
		return err
	})
}
