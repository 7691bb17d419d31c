package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

func cmdReceiptsVerify(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "verify RECEIPT…",
		Short: "Verify the signatures of receipts; asks no other machine",
		Long: `Verifies that the peer that a receipt names signed it, and that it does not
contradict what this machine sent and received. It takes no network, and no trust
in that peer to read a file from elsewhere. Whether what is signed is true shows
when the run is repeated: peerctl verify.`,
		Example: `  peerctl receipts verify 4m2k7
  peerctl receipts verify receipt.json -o json`,
		Args: takes("a RECEIPT (the start of its ID, or a file)…"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.verifyReceipts(cmd.Context(), args) },
	}
}

func (a *app) verifyReceipts(ctx context.Context, refs []string) error {
	return a.withClient(func(c *control.Client) error {
		list := []control.Receipt{}
		for _, ref := range refs {
			r, err := a.receipt(ctx, c, ref)
			if err != nil {
				return err
			}
			if r.Flaw != "" {
				return mesh.Errorf(mesh.Forged, "the receipt %s is signed by %s but does not hold: it states %s", r.ID, r.Peer, r.Flaw).
					WithRule("receipt.fits").WithHint("see all of it with: peerctl receipts show %s", ref)
			}
			list = append(list, r)
			if !a.json() {
				fmt.Fprintf(a.out, "%s: signed by %s (%s): %s, fuel %d\n", r.ID, clean(r.Peer), r.PeerID, a.endLine(r), r.Fuel)
			}
		}
		if a.json() {
			return a.printJSON(list)
		}
		return nil
	})
}
