package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdVolume(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "volume",
		Short: "See, back up, restore and remove volumes",
		Long: `A volume keeps the files of a container beyond its end. It is made by the first
"peerctl deploy --volume NAME:/DIR" that names it, on the peer that runs it, with a
fixed size that counts as disk of your grant there. It belongs to you, stays when the
workload is removed, and is used by one workload at a time.`,
		Example: `  peerctl volume ls --peer bob
  peerctl volume backup data --peer bob > data.tar.gz
  peerctl volume restore data2 --peer bob < data.tar.gz`,
		Args: cobra.ArbitraryArgs,
		RunE: onlySubcommands,
	}
	cmd.AddCommand(cmdVolumeLs(a), cmdVolumeInspect(a), cmdVolumeBackup(a), cmdVolumeRestore(a), cmdVolumeRm(a))
	return cmd
}

// volumePeerFlag is --peer of commands about volumes that are there already.
func (a *app) volumePeerFlag(cmd *cobra.Command, peer *string) {
	cmd.Flags().StringVar(peer, "peer", "", "yours on this peer: its `NAME` (default: this machine, whoever's they are)")
	completeFlag(cmd, "peer", a.completePeerFlag())
}

// completeVolumes completes the names of volumes.
func (a *app) completeVolumes(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	peer, _ := cmd.Flags().GetString("peer")
	return a.fromNode(cmd, func(ctx context.Context, c *control.Client) (found []cobra.Completion, err error) {
		volumes, err := c.Volumes(ctx, peer)
		for _, v := range volumes {
			found = append(found, cobra.CompletionWithDesc(v.Name, formatSize(v.Size)+", "+strings.Join(v.Workloads, " ")))
		}
		return found, err
	})
}

func onVolumePeer(v control.Volume) string {
	if v.Peer == "" || v.Peer == self {
		return ""
	}
	return " on " + v.Peer
}
