package main

import (
	"context"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

func cmdPublish(a *app) *cobra.Command {
	var peer, gateway string
	cmd := &cobra.Command{
		Use:   "publish WORKLOAD",
		Short: "Give a workload a public URL and print it",
		Example: `  peerctl publish hello
  peerctl publish hello --gateway gate`,
		Args:              takes("a WORKLOAD (its name or the start of its ID)"),
		ValidArgsFunction: a.completeWorkloads,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.publish(cmd.Context(), args[0], peer, gateway)
		},
	}
	cmd.Flags().StringVar(&gateway, "gateway", "", "`NAME` of the gateway to publish through (default: the peer's only one)")
	completeFlag(cmd, "gateway", a.completePeerFlag())
	a.peerFlag(cmd, &peer)
	return cmd
}

func (a *app) publish(ctx context.Context, ref, peer, gateway string) error {
	return a.withClient(func(c *control.Client) error {
		w, err := c.Publish(ctx, ref, peer, control.Publish{Gateway: gateway})
		if err != nil {
			return err
		}
		if a.json() {
			return a.printJSON(w)
		}
		if w.URL == "" {
			return mesh.Errorf(mesh.Unavailable, "%s will be published, but its gateway does not route it yet", w.Name).
				WithHint("see whether the gateway is connected: peerctl status")
		}
		return a.println(w.URL)
	})
}
