package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdVolumeInspect(a *app) *cobra.Command {
	var peer string
	cmd := &cobra.Command{
		Use:   "inspect VOLUME",
		Short: "Show all that is known of a volume",
		Example: `  peerctl volume inspect data --peer bob
  peerctl volume inspect data --peer bob -o json`,
		Args:              takes("a VOLUME (its name or the start of its ID)"),
		ValidArgsFunction: a.completeVolumes,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.inspectVolume(cmd.Context(), args[0], peer) },
	}
	a.volumePeerFlag(cmd, &peer)
	return cmd
}

func (a *app) inspectVolume(ctx context.Context, ref, peer string) error {
	return a.withClient(func(c *control.Client) error {
		v, err := c.Volume(ctx, ref, peer)
		if err != nil {
			return err
		}
		if a.json() {
			return a.printJSON(v)
		}
		used := strings.Join(v.Workloads, ", ")
		if used == "" {
			used = "none"
		}
		t := newTable(a.out)
		for _, line := range [][2]string{
			{"name", v.Name},
			{"id", string(v.ID)},
			{"state", v.State},
			{"size", formatSize(v.Size)},
			{"used", usedOf(v)},
			{"workload", used},
			{"peer", fmt.Sprintf("%s (%s)", v.Peer, v.PeerID)},
			{"owner", fmt.Sprintf("%s (%s)", v.Owner, v.OwnerID)},
			{"created", fmt.Sprintf("%s (%s ago)", v.Created.Local().Format("2006-01-02 15:04:05"), a.age(v.Created))},
		} {
			t.row(line[0]+":", line[1])
		}
		return t.flush()
	})
}
