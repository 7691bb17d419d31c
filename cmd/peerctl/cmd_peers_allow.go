package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdPeersAllow(a *app) *cobra.Command {
	var f grantFlags
	cmd := &cobra.Command{
		Use:   "allow PEER",
		Short: "Change what a peer may do here; it holds at once",
		Long: `Changes the grant of a peer. Flags that are not given leave their part as it is;
--allow replaces the whole list of rights. A quota of 0 allows nothing of it.`,
		Example: `  peerctl peers allow alice --allow deploy,observe --cpus 2 --memory 1G --max-workloads 10
  peerctl peers allow alice --allow none   # known, but may do nothing`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 && !strings.HasPrefix(args[1], "-") {
				return usagef("%s takes no argument %q", cmd.CommandPath(), args[1]).
					hint("rights are given with --allow, as in: %s %s --allow %s", cmd.CommandPath(), args[0], args[1])
			}
			return takes("a PEER (its name or the start of its ID)")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			change := f.change(cmd)
			if change == (control.GrantChange{}) {
				return usagef("nothing to change for %s", args[0]).hint("see: %s --help", cmd.CommandPath())
			}
			return a.allowPeer(cmd.Context(), args[0], change)
		},
		ValidArgsFunction: a.completePeers,
	}
	addGrantFlags(cmd, &f)
	return cmd
}

func (a *app) allowPeer(ctx context.Context, ref string, change control.GrantChange) error {
	return a.withClient(func(c *control.Client) error {
		p, err := c.AllowPeer(ctx, ref, change)
		if err != nil {
			return err
		}
		return a.showPeer(p)
	})
}
