package main

import (
	"context"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdReceiptsExport(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "export RECEIPT",
		Short: "Print a receipt as a file that others can verify",
		Example: `  peerctl receipts export 4m2k7 > receipt.json
  peerctl receipts verify receipt.json`,
		Args: takes("a RECEIPT (the start of its ID)"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.exportReceipt(cmd.Context(), args[0]) },
	}
}

func (a *app) exportReceipt(ctx context.Context, ref string) error {
	return a.withClient(func(c *control.Client) error {
		r, err := c.Receipt(ctx, ref)
		if err != nil {
			return err
		}
		return a.printJSON(receiptFile(&r))
	})
}
