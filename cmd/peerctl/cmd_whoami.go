package main

import (
	"context"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdWhoami(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "whoami",
		Short: "Print this machine's peer ID and addresses",
		Long: `Prints the ID of the node on this machine and the addresses where others reach
it. Any one of the addresses is all that another person needs for:
peerctl peers add ADDRESS`,
		Example: `  peerctl whoami
  peerctl whoami -o json`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.whoami(cmd.Context()) },
	}
}

func (a *app) whoami(ctx context.Context) error {
	return a.withClient(func(c *control.Client) error {
		me, err := c.Whoami(ctx)
		if err != nil {
			return err
		}
		if a.json() {
			if me.Addrs == nil {
				me.Addrs = []string{}
			}
			return a.printJSON(me)
		}
		t := newTable(a.out)
		t.row("id:", me.ID.String())
		for _, addr := range me.Addrs {
			t.row("address:", addr)
		}
		return t.flush()
	})
}
