package main

import (
	"context"
	"encoding/csv"
	"errors"
	"math"
	"strconv"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

// balanceLine is one peer's balance as it is printed.
type balanceLine struct {
	control.Balance
	Amount *float64 `json:"amount,omitempty"` // what the net fuel costs at the given price
}

func cmdBalance(a *app) *cobra.Command {
	var peer string
	price := math.NaN() // not given
	cmd := &cobra.Command{
		Use:   "balance",
		Short: "See who used more of the other's machine, in fuel",
		Long: `Adds up the receipts of the jobs that this machine and its peers ran for each
other, by this machine's own count: also of receipts that are not kept any more, and
without those that contradict what was sent and received. Services and containers
give no receipts and do not count. A price only says what the difference would
cost; nothing is paid or refused by it.`,
		Example: `  peerctl balance
  peerctl balance --peer bob --price-per-gfuel 0.02
  peerctl balance -o csv > ledger.csv`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.balance(cmd.Context(), peer, price) },
	}
	choiceVar(cmd, cmd.Flags(), &a.output, "output", "o", "how data is printed: table, json or csv", outputTable, outputJSON, outputCSV)
	cmd.Flags().StringVar(&peer, "peer", "", "only with this peer: its `NAME`")
	cmd.Flags().Var(&value[float64]{to: &price, parse: parsePrice, kind: "PRICE"}, "price-per-gfuel", "say what the difference costs if 1,000,000,000 fuel cost this much")
	completeFlag(cmd, "peer", a.completePeerFlag())
	return cmd
}

func parsePrice(s string) (float64, error) {
	p, err := strconv.ParseFloat(s, 64)
	if err != nil || p < 0 || math.IsNaN(p) || math.IsInf(p, 0) {
		return 0, errors.New("a price is a number from 0 up, such as 0.02")
	}
	return p, nil
}

func (a *app) balance(ctx context.Context, peer string, price float64) error {
	return a.withClient(func(c *control.Client) error {
		list, err := c.Balance(ctx, peer)
		if err != nil {
			return err
		}
		lines := []balanceLine{}
		for _, b := range list {
			l := balanceLine{Balance: b}
			if !math.IsNaN(price) {
				sum := float64(b.Net) / 1e9 * price
				l.Amount = &sum
			}
			lines = append(lines, l)
		}
		switch {
		case a.json():
			return a.printJSON(lines)
		case a.output == outputCSV:
			return a.balanceCSV(lines)
		case len(lines) == 0:
			a.note("nothing is owed: no job ran here for a peer, or on one")
			return nil
		}
		return a.balanceTable(lines)
	})
}

func (a *app) balanceTable(lines []balanceLine) error {
	head := []string{"PEER", "JOBS THERE", "FUEL THERE", "JOBS HERE", "FUEL HERE", "OWES", "NET FUEL"}
	if lines[0].Amount != nil {
		head = append(head, "AMOUNT")
	}
	t := newTable(a.out, head...)
	for _, l := range lines {
		t.row(l.cells()...)
	}
	return t.flush()
}

func (a *app) balanceCSV(lines []balanceLine) error {
	w := csv.NewWriter(a.out)
	_ = w.Write([]string{"peer", "peer_id", "there_jobs", "there_fuel", "here_jobs", "here_fuel", "debtor", "net_fuel", "amount"})
	for _, l := range lines {
		cells := l.cells()
		row := append([]string{cells[0], l.PeerID.String()}, cells[1:]...)
		if l.Amount == nil {
			row = append(row, "")
		}
		_ = w.Write(row)
	}
	w.Flush()
	return w.Error() // of any of them
}

// cells are what table and CSV have in common.
func (l balanceLine) cells() []string {
	out := []string{
		l.Peer, strconv.FormatInt(l.There.Jobs, 10), strconv.FormatUint(l.There.Fuel, 10),
		strconv.FormatInt(l.Here.Jobs, 10), strconv.FormatUint(l.Here.Fuel, 10), l.Debtor, strconv.FormatUint(l.Net, 10),
	}
	if l.Amount != nil {
		out = append(out, strconv.FormatFloat(*l.Amount, 'f', 6, 64))
	}
	return out
}
