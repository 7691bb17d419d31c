package main

import (
	"context"
	"encoding/csv"
	"strconv"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdBalance(a *app) *cobra.Command {
	var peer string
	cmd := &cobra.Command{
		Use:   "balance",
		Short: "See who used more of the other's machine",
		Long: `Adds up what this machine and each peer used of the other: the fuel of jobs, and
the seconds that containers were up.

What you used counts as far as the peer signed it, in receipts and statements that
do not contradict what was sent and asked for; so nobody can be charged for more
than can be shown. What a peer used here is this machine's own count, which it
signs for the peer. Services in WebAssembly give no receipts and do not count.

With prices (peerctl lend --price-per-gfuel, --price-per-container-second) both are
set off against each other, and OWES goes by the amount; without them it goes by
the fuel. What the debtor used less than the other is negative. Nothing is paid or
refused by any of it.`,
		Example: `  peerctl balance
  peerctl balance --peer bob -o json
  peerctl balance -o csv > ledger.csv`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.balance(cmd.Context(), peer) },
	}
	choiceVar(cmd, cmd.Flags(), &a.output, "output", "o", "how data is printed: table, json or csv", outputTable, outputJSON, outputCSV)
	cmd.Flags().StringVar(&peer, "peer", "", "only with this peer: its `NAME`")
	completeFlag(cmd, "peer", a.completePeerFlag())
	return cmd
}

func (a *app) balance(ctx context.Context, peer string) error {
	return a.withClient(func(c *control.Client) error {
		list, err := c.Balance(ctx, peer)
		if err != nil {
			return err
		}
		for _, b := range list {
			if b.Flaw != "" {
				a.note("%s's statement of containers does not count: %s", b.Peer, b.Flaw)
			}
		}
		switch {
		case a.json():
			return a.printJSON(list)
		case a.output == outputCSV:
			return a.balanceCSV(list)
		case len(list) == 0:
			a.note("nothing is owed: no job or container ran here for a peer, or on one")
			return nil
		}
		return a.balanceTable(list)
	})
}

func (a *app) balanceTable(list []control.Balance) error {
	t := newTable(a.out, "PEER", "JOBS THERE", "FUEL THERE", "SECONDS THERE", "JOBS HERE", "FUEL HERE", "SECONDS HERE", "OWES", "NET FUEL", "NET SECONDS", "AMOUNT")
	for _, b := range list {
		cells := balanceCells(b)
		if b.Amount == nil {
			cells[len(cells)-1] = "-"
		}
		t.row(cells...)
	}
	return t.flush()
}

func (a *app) balanceCSV(list []control.Balance) error {
	w := csv.NewWriter(a.out)
	_ = w.Write([]string{
		"peer", "peer_id", "there_jobs", "there_fuel", "there_container_seconds", "here_jobs", "here_fuel", "here_container_seconds",
		"debtor", "net_fuel", "net_container_seconds", "amount",
	})
	for _, b := range list {
		cells := balanceCells(b)
		_ = w.Write(append([]string{cells[0], b.PeerID.String()}, cells[1:]...))
	}
	w.Flush()
	return w.Error() // of any of them
}

// balanceCells are what table and CSV have in common.
func balanceCells(b control.Balance) []string {
	out := []string{b.Peer}
	for _, u := range []control.Used{b.There, b.Here} {
		out = append(out, strconv.FormatInt(u.Jobs, 10), strconv.FormatUint(u.Fuel, 10), strconv.FormatUint(u.ContainerSeconds, 10))
	}
	out = append(out, b.Debtor, strconv.FormatInt(b.NetFuel, 10), strconv.FormatInt(b.NetContainerSeconds, 10), "")
	if b.Amount != nil {
		out[len(out)-1] = strconv.FormatFloat(*b.Amount, 'f', 6, 64)
	}
	return out
}
