package main

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdReceiptsLs(a *app) *cobra.Command {
	var q control.ReceiptQuery
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the receipts that are kept, the newest first",
		Example: `  peerctl receipts ls
  peerctl receipts ls --peer bob -n 20 -o json`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.listReceipts(cmd.Context(), q) },
	}
	cmd.Flags().StringVar(&q.Peer, "peer", "", "only of runs on this peer or for it: its `NAME`, or self")
	completeFlag(cmd, "peer", a.completePeerFlag(cobra.CompletionWithDesc(self, "this machine")))
	countVar(cmd.Flags(), &q.Limit, "last", "n", "only the newest so many")
	return cmd
}

func (a *app) listReceipts(ctx context.Context, q control.ReceiptQuery) error {
	return a.withClient(func(c *control.Client) error {
		list, err := c.Receipts(ctx, q)
		if err != nil {
			return err
		}
		if a.json() {
			fill(&list)
			return a.printJSON(list)
		}
		if len(list) == 0 {
			a.note("no receipts yet; a job gives one: peerctl run FILE.wasm")
			return nil
		}
		t := newTable(a.out, "ID", "RAN ON", "FOR", "MODULE", "EXIT", "FUEL", "MEMORY", "AGE", "NOTE")
		for _, r := range list {
			t.row(shortID(r.ID), r.Peer, r.Asker, shortDigest(r.Module), endOf(r), strconv.FormatUint(r.Fuel, 10), formatSize(int64(r.PeakMemory)), a.age(r.Ended), receiptNote(r))
		}
		return t.flush()
	})
}

// shortDigest is enough of a digest to tell it from others.
func shortDigest(d string) string { return d[:min(len("sha256:")+8, len(d))] }

// endOf is how a run ended, in a word.
func endOf(r control.Receipt) string {
	if r.Kind != "" {
		return r.Kind
	}
	return strconv.Itoa(r.Exit)
}

// receiptNote is what should make one look twice, or feel sure.
func receiptNote(r control.Receipt) string {
	if r.Flaw != "" {
		return "CONTRADICTED"
	}
	agree := 0
	for _, v := range r.Verified {
		if !v.Agrees {
			return "DISPUTED by " + v.By
		}
		agree++
	}
	if agree > 0 {
		return "verified " + plural(agree, "time")
	}
	return ""
}
