package main

import (
	"time"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdPeersDiscover(a *app) *cobra.Command {
	var long time.Duration
	cmd := &cobra.Command{
		Use:   "discover",
		Short: "Look which machines announce themselves on the local network",
		Long: `Asks the local network (multicast DNS) and lists the nodes that say they are there:
those run with "discover = true" in peerd.toml. Anybody on the network can say
anything, so nothing here is trusted or changed by it.`,
		Example: `  peerctl peers discover
  peerctl peers discover --timeout 15s -o json`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withClient(func(c *control.Client) error {
				found, err := c.Discover(cmd.Context(), long)
				if err != nil {
					return err
				}
				if a.json() {
					fill(&found)
					return a.printJSON(found)
				}
				return a.showNeighbours(found)
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	long = 5 * time.Second
	cmd.Flags().Var(&value[time.Duration]{to: &long, parse: parseDuration, kind: "DURATION", text: "5s"}, "timeout", "how long to listen, at most 1m")
	return cmd
}

func (a *app) showNeighbours(found []control.Neighbour) error {
	if len(found) == 0 {
		a.note("nobody announces itself on the local network")
		a.note("next: on the other machine: peerd run --discover   (or discover = true in peerd.toml)")
		return nil
	}
	t := newTable(a.out, "NAME", "ID", "TRUSTED", "ADDRESS")
	strangers := false
	for _, n := range found {
		strangers = strangers || !n.Trusted
		first := ""
		if len(n.Addrs) > 0 {
			first = n.Addrs[0]
		}
		trusted := "no"
		if n.Trusted {
			trusted = "yes"
		}
		t.row(n.Name, shortPeer(n.ID), trusted, first)
	}
	if err := t.flush(); err != nil {
		return err
	}
	if strangers {
		a.note("the name of one that is not trusted is only what it says; ask it for trust with: peerctl peers knock ADDRESS")
	}
	return nil
}
