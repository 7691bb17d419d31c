package main

import (
	"context"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdImagePrune(a *app) *cobra.Command {
	var peer string
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove pushed images that no workload uses",
		Long: `Removes what peers pushed here, or with --peer what you pushed there, as far as no
workload is made from it, running or not, or could go back to it (peerctl rollback).
Other images are never touched.`,
		Example: `  peerctl image prune
  peerctl image prune --peer bob`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.pruneImages(cmd.Context(), peer) },
	}
	cmd.Flags().StringVar(&peer, "peer", "", "what you pushed to this peer: its `NAME`")
	completeFlag(cmd, "peer", a.completePeerFlag())
	return cmd
}

func (a *app) pruneImages(ctx context.Context, peer string) error {
	return a.withClient(func(c *control.Client) error {
		gone, err := c.PruneImages(ctx, peer)
		if err != nil {
			return err
		}
		if len(gone) == 0 && !a.json() {
			a.note("nothing to remove: every pushed image is in use, or there is none")
			return nil
		}
		return a.showImages(gone)
	})
}
