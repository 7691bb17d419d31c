package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdVolumeLs(a *app) *cobra.Command {
	var peer string
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the volumes here, or yours on a peer",
		Example: `  peerctl volume ls
  peerctl volume ls --peer bob -o json`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.listVolumes(cmd.Context(), peer) },
	}
	a.volumePeerFlag(cmd, &peer)
	return cmd
}

func (a *app) listVolumes(ctx context.Context, peer string) error {
	return a.withClient(func(c *control.Client) error {
		volumes, err := c.Volumes(ctx, peer)
		if err != nil {
			return err
		}
		if a.json() {
			return a.printJSON(volumes)
		}
		if len(volumes) == 0 {
			a.note("no volumes; make one with: peerctl deploy IMAGE --volume NAME:/DIR")
			return nil
		}
		t := newTable(a.out, "NAME", "ID", "OWNER", "PEER", "USED", "SIZE", "STATE", "WORKLOADS", "AGE")
		for _, v := range volumes {
			t.row(v.Name, string(v.ID), v.Owner, v.Peer, usedOf(v), formatSize(v.Size), v.State, strings.Join(v.Workloads, " "), a.age(v.Created))
		}
		return t.flush()
	})
}

// usedOf is how much of a volume is not free, if that is known.
func usedOf(v control.Volume) string {
	if v.Used == 0 {
		return none
	}
	return formatSize(v.Used)
}
