package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdReceiptsShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show RECEIPT",
		Short: "Show all that a receipt states",
		Example: `  peerctl receipts show 4m2k7
  peerctl receipts show receipt.json -o json`,
		Args: takes("a RECEIPT (the start of its ID, or a file)"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.showReceipt(cmd.Context(), args[0]) },
	}
}

func (a *app) showReceipt(ctx context.Context, ref string) error {
	return a.withClient(func(c *control.Client) error {
		r, err := a.receipt(ctx, c, ref)
		if err != nil {
			return err
		}
		if a.json() {
			return a.printJSON(r)
		}
		t := newTable(a.out)
		line := func(key, text string) {
			if text != "" {
				t.row(key+":", text)
			}
		}
		line("id", string(r.ID))
		line("ran on", fmt.Sprintf("%s (%s)", r.Peer, r.PeerID))
		line("for", fmt.Sprintf("%s (%s)", r.Asker, r.AskerID))
		line("contradicted", r.Flaw)
		line("ended", a.endLine(r))
		line("fuel", fmt.Sprintf("%d (%s)", r.Fuel, r.Schedule))
		line("peak memory", formatSize(int64(r.PeakMemory)))
		line("module", r.Module)
		line("spec", r.Spec)
		line("seed", r.Seed)
		line("input", sized(r.Input, r.InputSize)+wholeness(r))
		line("output", sized(r.Output, r.OutputSize))
		line("log", sized(r.Log, r.LogSize))
		line("observed", sized(r.Record, r.RecordSize))
		line("capabilities", strings.Join(r.Capabilities, ", "))
		line("request", r.Request)
		for _, v := range r.Verified {
			line("repeated", a.verificationLine(v))
		}
		return t.flush()
	})
}

func (a *app) endLine(r control.Receipt) string {
	end := fmt.Sprintf("exit %d", r.Exit)
	if r.Kind != "" {
		end = r.Kind
		if r.Reason != "" {
			end += ": " + r.Reason
		}
	}
	return fmt.Sprintf("%s, %s after %s", end, r.Ended.Local().Format("2006-01-02 15:04:05"), r.Ended.Sub(r.Started))
}

func sized(digest string, size uint64) string { return fmt.Sprintf("%s  %d bytes", digest, size) }

func wholeness(r control.Receipt) string {
	switch {
	case r.Cut:
		return ", streamed; too much to repeat exactly"
	case !r.Whole:
		return ", streamed"
	}
	return ""
}

func (a *app) verificationLine(v control.Verification) string {
	if v.Agrees {
		return fmt.Sprintf("%s agrees (%s, %s ago)", v.By, v.Receipt, a.age(v.At))
	}
	return fmt.Sprintf("%s DIFFERS: %s (%s, %s ago)", v.By, strings.Join(v.Differs, "; "), v.Receipt, a.age(v.At))
}
