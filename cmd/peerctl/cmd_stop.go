package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdStop(a *app) *cobra.Command {
	var peer string
	cmd := &cobra.Command{
		Use:     "stop WORKLOAD…",
		Short:   "Stop workloads, keeping their record and log",
		Example: `  peerctl stop hello`,
		Args:    takes("a WORKLOAD (its name or the start of its ID)…"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.each(args, func(c *control.Client, ref string) (control.Workload, error) {
				return c.Stop(cmd.Context(), ref, peer)
			})
		},
		ValidArgsFunction: a.completeWorkloads,
	}
	a.peerFlag(cmd, &peer)
	return cmd
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
