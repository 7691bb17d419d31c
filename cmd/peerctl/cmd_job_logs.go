package main

import (
	"context"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdJobLogs(a *app) *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use:   "logs JOB",
		Short: "Print what a job has written so far",
		Long: `Prints what a job wrote to its stdout and stderr, to those of peerctl, also while it
runs. On a terminal, control sequences other than colours are left out.`,
		Example: `  peerctl job logs 4m2k7
  peerctl job logs -f 4m2k7`,
		Args:              takes(aJob),
		ValidArgsFunction: a.completeJobs,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.jobLogs(cmd.Context(), args[0], follow) },
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until it ends or Ctrl-C")
	return cmd
}

func (a *app) jobLogs(ctx context.Context, ref string, follow bool) error {
	return a.withClient(func(c *control.Client) error {
		_, err := c.JobOutput(ctx, ref, control.JobOutput{Follow: follow}, a.jobStreams())
		return err
	})
}

func (a *app) jobStreams() control.JobStreams {
	return control.JobStreams{Stdout: a.terminalOutput(a.out), Stderr: a.terminalOutput(a.err)}
}
