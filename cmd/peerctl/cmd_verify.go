package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

func cmdVerify(a *app) *cobra.Command {
	var by, input string
	cmd := &cobra.Command{
		Use:   "verify RECEIPT",
		Short: "Repeat the run of a receipt on another peer and compare",
		Long: `Runs the same module with the same input, arguments and seed on another peer, and
compares output, log, exit, fuel and memory with what the receipt states. Exits 1
if they differ: then one of the two peers does not tell the truth.`,
		Example: `  peerctl verify 4m2k7 --by carol
  peerctl verify 4m2k7 --by carol --input words.txt`,
		Args: takes("a RECEIPT (the start of its ID)"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if by == "" {
				return usagef("it is not said who repeats the run").hint("name a peer: peerctl verify %s --by NAME", args[0])
			}
			return a.verify(cmd.Context(), control.Verify{Receipt: args[0], By: by}, input)
		},
	}
	cmd.Flags().StringVar(&by, "by", "", "the peer that repeats the run: its `NAME`, or self")
	cmd.Flags().StringVar(&input, "input", "", "`FILE` with the run's input, if it is not kept any more")
	completeFlag(cmd, "by", a.completePeerFlag(cobra.CompletionWithDesc(self, "this machine")))
	return cmd
}

func (a *app) verify(ctx context.Context, v control.Verify, input string) error {
	return a.withClient(func(c *control.Client) error {
		if input != "" {
			f, err := os.Open(input)
			if err != nil {
				return usagef("cannot open %s: %s", input, root(err))
			}
			defer f.Close()
			in, err := c.UploadInput(ctx, f)
			if err != nil {
				return err
			}
			v.Input = in.Digest
		}
		got, err := c.Verify(ctx, v)
		if err != nil {
			return err
		}
		if a.json() {
			if err := a.printJSON(got); err != nil {
				return err
			}
		}
		if !got.Agrees {
			return mesh.Errorf(mesh.Conflict, "%s does not agree with %s: %s", got.Again.Peer, got.Receipt.Peer, strings.Join(got.Differs, "; ")).
				WithHint("have a third peer repeat it: peerctl verify %s --by NAME", shortID(got.Receipt.ID))
		}
		if !a.json() {
			fmt.Fprintf(a.out, "%s agrees with %s: output %s, %s, fuel %d\n", clean(got.Again.Peer), clean(got.Receipt.Peer), got.Again.Output, endOf(got.Again), got.Again.Fuel)
		}
		return nil
	})
}
