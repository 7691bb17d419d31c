package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

func cmdJobWait(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "wait JOB…",
		Short: "Wait until jobs are done",
		Long: `Waits until each job is done and says how it ended. The exit status is 0 if all
ended well, else that of the first that did not.`,
		Example: `  peerctl job wait 4m2k7
  peerctl job wait 4m2k7 9qx31 -o json`,
		Args:              takes(aJob + "…"),
		ValidArgsFunction: a.completeJobs,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.waitJobs(cmd.Context(), args) },
	}
}

func (a *app) waitJobs(ctx context.Context, refs []string) error {
	return a.withClient(func(c *control.Client) error {
		list := []control.RunResult{}
		status := exitOK
		for _, ref := range refs {
			end, err := c.JobOutput(ctx, ref, control.JobOutput{Follow: true, Quiet: true}, a.jobStreams())
			if err != nil {
				return err
			}
			list = append(list, end)
			if !a.json() {
				fmt.Fprintf(a.out, "%s: %s\n", end.ID, clean(howEnded(end)))
			}
			if s := statusOf(end.Exit); status == exitOK {
				status = s
			}
		}
		if a.json() {
			if err := a.printJSON(list); err != nil {
				return err
			}
		}
		if status != exitOK {
			return exitStatus(status)
		}
		return nil
	})
}

// howEnded says how a job ended.
func howEnded(end control.RunResult) string {
	if end.Kind != mesh.Internal {
		return fmt.Sprintf("%s: %s", end.Kind, end.Reason)
	}
	return fmt.Sprintf("exit %d, fuel %d", end.Code, end.Fuel)
}
