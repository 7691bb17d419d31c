package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

func cmdReceipts(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "receipts",
		Short: "See what peers signed about the jobs that they ran",
		Long: `The peer that runs a job signs a receipt: module, input, output and log by their
digests, how it ended, and the fuel and memory that it took. Both sides keep it.
Whether it is true can be tried: the same run elsewhere gives the same receipt.`,
		Example: `  peerctl receipts ls
  peerctl receipts verify 4m2k7`,
		Args: cobra.ArbitraryArgs,
		RunE: onlySubcommands,
	}
	cmd.AddCommand(cmdReceiptsLs(a), cmdReceiptsShow(a), cmdReceiptsVerify(a), cmdReceiptsExport(a))
	return cmd
}

// maxReceiptFile bounds what is read as a receipt, in bytes.
const maxReceiptFile = 64 << 10

// writeReceipt writes a receipt to a file; nothing if no name is given.
func writeReceipt(path string, r *control.Receipt) error {
	if path == "" || r == nil {
		return nil
	}
	b, err := json.MarshalIndent(receiptFile(r), "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, append(b, '\n'), 0o600); err != nil {
		return mesh.Errorf(mesh.Invalid, "cannot write the receipt").Because(err)
	}
	return nil
}

func receiptFile(r *control.Receipt) control.ReceiptFile {
	shown := *r
	shown.Envelope = nil
	return control.ReceiptFile{Format: control.ReceiptFormat, Envelope: r.Envelope, Receipt: &shown}
}

// receipt finds a receipt by its ID at the node, or in a file of that name, whose
// signature the node then verifies.
func (a *app) receipt(ctx context.Context, c *control.Client, ref string) (control.Receipt, error) {
	f, err := os.Open(ref)
	if errors.Is(err, fs.ErrNotExist) {
		r, err := c.Receipt(ctx, ref)
		if err != nil {
			return r, err
		}
		return c.CheckReceipt(ctx, receiptFile(&r))
	}
	if err != nil {
		return control.Receipt{}, usagef("cannot open %s: %s", ref, root(err))
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxReceiptFile+1))
	if err != nil {
		return control.Receipt{}, usagef("cannot read %s: %s", ref, root(err))
	}
	var file control.ReceiptFile
	if err := json.Unmarshal(b, &file); err != nil || len(b) > maxReceiptFile {
		return control.Receipt{}, usagef("%s is not a receipt", ref).hint("make one with: peerctl receipts export ID > %s", ref)
	}
	file.Receipt = nil // only what is signed counts
	return c.CheckReceipt(ctx, file)
}
