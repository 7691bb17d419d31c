package main

import (
	"context"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdImagePush(a *app) *cobra.Command {
	var peer string
	cmd := &cobra.Command{
		Use:   "push IMAGE",
		Short: "Give an image of this machine to a peer",
		Long: `Sends what the peer lacks of an image of this machine's engine, and prints the
image's ID. A push that was cut goes on where it broke off. The peer's grant must
allow it: its --images have to be any, pushed, or the image's own digest.`,
		Example: `  peerctl image push myapp:1 --peer bob
  peerctl image push sha256:3fa1… --peer bob -o json`,
		Args: takes("an IMAGE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.pushImage(cmd.Context(), control.PushImage{Peer: peer, Image: args[0]})
		},
	}
	cmd.Flags().StringVar(&peer, "peer", "", "`NAME` of the peer that gets it (default: the only one)")
	completeFlag(cmd, "peer", a.completePeerFlag())
	return cmd
}

func (a *app) pushImage(ctx context.Context, r control.PushImage) error {
	return a.withClient(func(c *control.Client) error {
		p := a.progress()
		got, err := c.PushImage(ctx, r, func(ev control.ImageEvent) {
			if ev.Progress != nil {
				p.bytes(ev.Progress.What, ev.Progress.Done, ev.Progress.Total)
			}
		})
		p.clear()
		if err != nil {
			return err
		}
		if a.json() {
			return a.printJSON(got)
		}
		a.note("%s is on %s (%s, %s sent)", r.Image, got.Peer, formatSize(got.Size), formatSize(got.Sent))
		return a.println(got.ID)
	})
}
