package main

import (
	"context"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdRollback(a *app) *cobra.Command {
	var peer string
	var detach bool
	var b control.Rollback
	cmd := &cobra.Command{
		Use:   "rollback WORKLOAD",
		Short: "Make an earlier revision of a workload serve again",
		Long: `Deploys what an earlier revision was as a new one, in the same way: it starts beside
the one that serves and takes its place once it is ready. A container gets the very
image that ran then, as long as the peer's engine has it.`,
		Example: `  peerctl rollback hello           # to the revision that served before
  peerctl rollback hello --to 3`,
		Args:              takes("a WORKLOAD (its name or the start of its ID)"),
		ValidArgsFunction: a.completeWorkloads,
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("to") && b.To == 0 {
				return usagef("--to 0: revisions are numbered from 1").hint("list them with: peerctl history %s", args[0])
			}
			b.Wait = !detach
			return a.rollback(cmd.Context(), args[0], peer, b)
		},
	}
	countVar(cmd.Flags(), &b.To, "to", "", "the revision to go back to (default: the one that served before)")
	cmd.Flags().BoolVar(&b.Recreate, "recreate", false, "stop what serves before the earlier revision starts: room for one is enough, and nothing answers meanwhile")
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "return as soon as the peer has accepted it")
	a.peerFlag(cmd, &peer)
	return cmd
}

func (a *app) rollback(ctx context.Context, ref, peer string, b control.Rollback) error {
	return a.withClient(func(c *control.Client) error {
		w, err := a.followDeploy(ctx, a.progress(), b.Wait, func(on func(control.DeployEvent)) (control.Workload, error) {
			return c.Rollback(ctx, ref, peer, b, on)
		})
		if err != nil {
			return err
		}
		if a.json() {
			return a.printJSON(w)
		}
		a.note("%s is %s%s (%s%s)", w.Name, w.State, onPeer(w), shortID(w.ID), revisionNote(w))
		if w.URL != "" {
			return a.println(w.URL)
		}
		return a.println(string(w.ID))
	})
}
