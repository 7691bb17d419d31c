package main

import (
	"context"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdPeersLs(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the trusted peers and what they may do here",
		Example: `  peerctl peers ls
  peerctl peers ls -o json`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.listPeers(cmd.Context()) },
	}
}

func (a *app) listPeers(ctx context.Context) error {
	return a.withClient(func(c *control.Client) error {
		peers, err := c.Peers(ctx)
		if err != nil {
			return err
		}
		if a.json() {
			full := make([]control.Peer, len(peers))
			for i, p := range peers {
				full[i] = fullPeer(p)
			}
			return a.printJSON(full)
		}
		if len(peers) == 0 {
			a.note("no peers yet; trust one with: peerctl peers add ADDRESS --name NAME")
			return nil
		}
		return a.peerTable(peers)
	})
}
