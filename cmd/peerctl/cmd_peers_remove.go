package main

import (
	"context"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdPeersRemove(a *app) *cobra.Command {
	var keep bool
	cmd := &cobra.Command{
		Use:     "remove PEER",
		Aliases: []string{"rm"},
		Short:   "End trust in a peer: its connections, names and workloads here",
		Example: `  peerctl peers remove alice
  peerctl peers remove alice --keep   # its workloads go on running`,
		Args: takes("a PEER (its name or the start of its ID)"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.removePeer(cmd.Context(), args[0], keep)
		},
		ValidArgsFunction: a.completePeers,
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "leave its workloads running")
	return cmd
}

func (a *app) removePeer(ctx context.Context, ref string, keep bool) error {
	return a.withClient(func(c *control.Client) error {
		r, err := c.RemovePeer(ctx, ref, keep)
		if err != nil {
			return err
		}
		if a.json() {
			fill(&r.Stopped)
			return a.printJSON(r)
		}
		a.note("%s is not trusted any more; stopped here: %s", r.Name, plural(len(r.Stopped), "workload"))
		return a.println(r.Name)
	})
}
