package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

func cmdJob(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "job",
		Aliases: []string{"jobs"},
		Short:   "Queue WASM programs and see what came of them",
		Long: `A queued job needs nobody who waits: once its ID is printed it is on the disk of its
peer, also across a crash, and runs when it is its turn. Its results are kept
there until newer ones of yours take their place.`,
		Example: `  peerctl job submit --peer bob render.wasm -- --frame 7
  peerctl job wait 4m2k7
  peerctl job result 4m2k7 > frame.png`,
		Args: cobra.ArbitraryArgs,
		RunE: onlySubcommands,
	}
	cmd.AddCommand(cmdJobSubmit(a), cmdJobLs(a), cmdJobLogs(a), cmdJobWait(a), cmdJobResult(a), cmdJobCancel(a))
	return cmd
}

const aJob = "a JOB (the start of its ID)"

// submit queues a job and prints its ID.
func (a *app) submit(ctx context.Context, f *workFlags, anywhere bool, path string, args []string) error {
	spec, mod, err := a.jobModule(f, path, args)
	if err != nil {
		return err
	}
	defer mod.Close()
	return a.withClient(func(c *control.Client) error {
		if err := mod.upload(ctx, c, a.progress()); err != nil {
			return err
		}
		order := control.SubmitJob{Peer: f.peer, Any: anywhere, Spec: spec}
		if hasInput(a.in) {
			in, err := c.UploadInput(ctx, a.in)
			if err != nil {
				return err
			}
			order.Input = in.Digest
		}
		j, err := c.SubmitJob(ctx, order)
		if err != nil {
			return err
		}
		if a.json() {
			return a.printJSON(j)
		}
		if anywhere {
			a.note("queued on %s", j.Peer)
		}
		fmt.Fprintln(a.out, j.ID)
		return nil
	})
}

// hasInput reports whether a job that is not attended is to get an input: a file or
// a pipe is read to its end, a terminal or the null device is not.
func hasInput(in io.Reader) bool {
	f, ok := in.(*os.File)
	if !ok {
		return in != nil
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice == 0
}

// completeJobs completes the IDs of jobs.
func (a *app) completeJobs(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return a.fromNode(cmd, func(ctx context.Context, c *control.Client) ([]cobra.Completion, error) {
		var found []cobra.Completion
		list, err := c.Jobs(ctx, "")
		for _, j := range list {
			found = append(found, cobra.CompletionWithDesc(string(j.ID), j.Name+", "+j.State+" on "+j.Peer))
		}
		return found, err
	})
}

// jobState is a job's state with the number that belongs to it.
func jobState(j control.Job) string {
	switch {
	case j.State == "queued" && j.Ahead > 0:
		return fmt.Sprintf("queued (%d ahead)", j.Ahead)
	case j.Exit == nil:
		return j.State
	case j.Exit.Kind != mesh.Internal:
		return fmt.Sprintf("%s (%s)", j.State, j.Exit.Kind)
	}
	return fmt.Sprintf("%s (%d)", j.State, j.Exit.Code)
}
