package main

import (
	"context"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdVolumeRm(a *app) *cobra.Command {
	var peer string
	cmd := &cobra.Command{
		Use:     "rm VOLUME…",
		Aliases: []string{"remove"},
		Short:   "Remove volumes with all their files",
		Long: `Removes volumes and all that is in them; nothing brings that back. A volume that a
workload has, running or not, is not removed: remove the workload first.`,
		Example: `  peerctl volume rm data --peer bob
  peerctl volume rm data cache --peer bob`,
		Args:              takes("a VOLUME (its name or the start of its ID)…"),
		ValidArgsFunction: a.completeVolumes,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.removeVolumes(cmd.Context(), args, peer) },
	}
	a.volumePeerFlag(cmd, &peer)
	return cmd
}

func (a *app) removeVolumes(ctx context.Context, refs []string, peer string) error {
	return a.withClient(func(c *control.Client) error {
		gone := []control.Volume{}
		for _, ref := range refs {
			v, err := c.RemoveVolume(ctx, ref, peer)
			if err != nil {
				return err
			}
			gone = append(gone, v)
			if a.json() {
				continue
			}
			a.note("%s%s is %s", v.Name, onVolumePeer(v), v.State)
			if err := a.println(string(v.ID)); err != nil {
				return err
			}
		}
		if a.json() {
			return a.printJSON(gone)
		}
		return nil
	})
}
