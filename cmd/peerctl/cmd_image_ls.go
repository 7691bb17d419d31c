package main

import (
	"context"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdImageLs(a *app) *cobra.Command {
	var peer string
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List pushed images: what peers pushed here, or yours on a peer",
		Example: `  peerctl image ls
  peerctl image ls --peer bob -o json`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.listImages(cmd.Context(), peer) },
	}
	cmd.Flags().StringVar(&peer, "peer", "", "what you pushed to this peer: its `NAME`")
	completeFlag(cmd, "peer", a.completePeerFlag())
	return cmd
}

func (a *app) listImages(ctx context.Context, peer string) error {
	return a.withClient(func(c *control.Client) error {
		images, err := c.Images(ctx, peer)
		if err != nil {
			return err
		}
		if len(images) == 0 && !a.json() {
			a.note("no pushed images; push one with: peerctl image push IMAGE --peer NAME")
			return nil
		}
		return a.showImages(images)
	})
}
