package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdPeersInvite(a *app) *cobra.Command {
	var f grantFlags
	var draw bool
	n := control.NewInvite{}
	cmd := &cobra.Command{
		Use:   "invite",
		Short: "Make a token by which another machine joins",
		Long: `Prints a token that holds this machine's address and a secret that works once.
Give it to one person you trust, over a channel you trust; with it their machine
joins, and both machines trust each other. --allow says what they may do here.`,
		Example: `  peerctl peers invite --allow deploy --cpus 2 --memory 1G
  peerctl peers invite --name alice --ttl 10m --qr
  peerctl peers invite --uses 5 --ttl 24h --allow deploy,observe`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			n.Change = f.change(cmd)
			return a.withClient(func(c *control.Client) error {
				i, err := c.Invite(cmd.Context(), n)
				if err != nil {
					return err
				}
				if a.json() {
					return a.printJSON(i)
				}
				allow := strings.Join(i.Allow, ", ")
				if allow == "" {
					allow = "nothing yet"
				}
				a.note("whoever joins with it may do here: %s. It works %s, for %s.", allow, times(i.Uses), time.Until(i.Expires).Round(time.Second))
				a.note("on the other machine: peerctl peers join TOKEN")
				if draw {
					if err := a.drawQR(a.err, i.Token); err != nil {
						return err
					}
				}
				return a.println(i.Token)
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	flags := cmd.Flags()
	flags.DurationVar(&n.TTL, "ttl", time.Hour, "how long it works, at most 168h")
	flags.IntVar(&n.Uses, "uses", 1, "how many machines may join with it")
	flags.StringVar(&n.Name, "name", "", "local `NAME` for the one who joins (default: as it calls itself)")
	flags.BoolVar(&draw, "qr", false, "draw the token as a QR code too (not part of the output)")
	flags.StringVar(&n.As, "as", hostLabel(), "what this machine calls itself")
	addGrantFlags(cmd, &f)
	return cmd
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}
