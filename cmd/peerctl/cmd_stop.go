package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdStop(a *app) *cobra.Command {
	var peer, from string
	one := takes("a WORKLOAD (its name or the start of its ID)…")
	cmd := &cobra.Command{
		Use:   "stop WORKLOAD…",
		Short: "Stop workloads, keeping their record and log",
		Example: `  peerctl stop hello
  peerctl stop --from bob`,
		Args: func(cmd *cobra.Command, args []string) error {
			if from == "" {
				return one(cmd, args)
			}
			if len(args) > 0 || peer != "" {
				return usagef("--from stops all that a peer runs on this machine: it takes no WORKLOAD and no --peer")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if from != "" {
				return a.stopFrom(cmd.Context(), from)
			}
			return a.each(args, func(c *control.Client, ref string) (control.Workload, error) {
				return c.Stop(cmd.Context(), ref, peer)
			})
		},
		ValidArgsFunction: a.completeWorkloads,
	}
	a.peerFlag(cmd, &peer)
	cmd.Flags().StringVar(&from, "from", "", "all workloads here that this peer deployed: its `NAME` or ID")
	completeFlag(cmd, "from", a.completePeerFlag())
	return cmd
}

func (a *app) stopFrom(ctx context.Context, from string) error {
	return a.withClient(func(c *control.Client) error {
		stopped, err := c.StopFrom(ctx, from)
		if err != nil {
			return err
		}
		if a.json() {
			return a.printJSON(stopped)
		}
		if len(stopped) == 0 {
			a.note("nothing of %s runs here", from)
		}
		for _, w := range stopped {
			if err := a.println(w.Name); err != nil {
				return err
			}
		}
		return nil
	})
}

// each does the same to several workloads and prints the name of each, or one JSON
// object for each. What fails for one does not keep the others from it.
func (a *app) each(refs []string, do func(*control.Client, string) (control.Workload, error)) error {
	return a.withClient(func(c *control.Client) error {
		var failed []error
		for _, ref := range refs {
			w, err := do(c, ref)
			if err == nil && a.json() {
				err = a.printJSON(w)
			} else if err == nil {
				err = a.println(w.Name)
			}
			if err != nil {
				failed = append(failed, err)
			}
			if errors.Is(err, context.Canceled) {
				break
			}
		}
		return errors.Join(failed...)
	})
}
