package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdJobCancel(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "cancel JOB…",
		Short: "Take jobs out of the queue, or end their runs",
		Example: `  peerctl job cancel 4m2k7
  peerctl job cancel 4m2k7 9qx31`,
		Args:              takes(aJob + "…"),
		ValidArgsFunction: a.completeJobs,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.cancelJobs(cmd.Context(), args) },
	}
}

func (a *app) cancelJobs(ctx context.Context, refs []string) error {
	return a.withClient(func(c *control.Client) error {
		list := []control.Job{}
		for _, ref := range refs {
			j, err := c.CancelJob(ctx, ref)
			if err != nil {
				return err
			}
			list = append(list, j)
			if !a.json() {
				fmt.Fprintln(a.out, j.ID)
			}
		}
		if a.json() {
			return a.printJSON(list)
		}
		return nil
	})
}
