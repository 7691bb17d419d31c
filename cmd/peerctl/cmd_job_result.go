package main

import (
	"context"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

func cmdJobResult(a *app) *cobra.Command {
	var receipt string
	cmd := &cobra.Command{
		Use:   "result JOB",
		Short: "Print what a job wrote, and end as it did",
		Long: `Prints the stdout and stderr of a job that is done, to those of peerctl, and exits
with its status: as if peerctl run had run it. What arrives is held against the
receipt that its peer signed. A job that is not done is an error: wait for it.`,
		Example: `  peerctl job result 4m2k7 > frame.png
  peerctl job result --receipt receipt.json 4m2k7`,
		Args:              takes(aJob),
		ValidArgsFunction: a.completeJobs,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.jobResult(cmd.Context(), args[0], receipt) },
	}
	cmd.Flags().StringVar(&receipt, "receipt", "", "write the signed receipt to `FILE`")
	return cmd
}

func (a *app) jobResult(ctx context.Context, ref, receipt string) error {
	return a.withClient(func(c *control.Client) error {
		j, err := c.Job(ctx, ref)
		if err != nil {
			return err
		}
		if j.State != "done" {
			return mesh.Errorf(mesh.Unavailable, "job %s is %s", j.ID, jobState(j)).
				WithHint("wait for it with: peerctl job wait %s   (what it has written so far: peerctl job logs)", shortID(j.ID))
		}
		end, err := c.JobOutput(ctx, string(j.ID), control.JobOutput{}, a.jobStreams())
		if err != nil {
			return err
		}
		if err := writeReceipt(receipt, end.Receipt); err != nil {
			return err
		}
		return a.ended(j.Name, end)
	})
}
