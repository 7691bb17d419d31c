package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdAuditVerify(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "verify [FILE]",
		Short: "Check that no entry was changed, dropped or swapped",
		Long: `Checks the whole chain of this node's audit log, or of one that was exported, and
names the first broken entry. A log that was written anew from end to end holds too:
so this node's is also compared with the heads that its peers countersigned in
heartbeats. Peers keep those as well, and say so if they miss one.`,
		Example: `  peerctl audit verify
  peerctl audit verify bob.jsonl`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(func(c *control.Client) error { return a.verifyAudit(cmd.Context(), c, args) })
		},
	}
}

func (a *app) verifyAudit(ctx context.Context, c *control.Client, files []string) error {
	var r control.AuditReport
	var err error
	if len(files) == 0 {
		r, err = c.VerifyAudit(ctx)
	} else {
		f, ferr := os.Open(files[0])
		if ferr != nil {
			return ferr
		}
		defer f.Close()
		r, err = c.VerifyExport(ctx, f)
	}
	if err != nil {
		return err
	}
	if a.json() {
		return a.printJSON(r)
	}
	whole := "the log is empty"
	if r.Entries > 0 {
		whole = fmt.Sprintf("%d entries, from %d to %d, hold; the head is %s", r.Entries, r.First, r.HeadSeq, r.HeadHash)
	}
	if r.Witnessed > 0 {
		whole += fmt.Sprintf("; it agrees with what %d peers countersigned", r.Witnessed)
	}
	switch r.Standing {
	case "held":
		whole += "; this node's log still holds it"
	case "foreign":
		whole += "; it is not part of this node's log"
	case "dropped":
		whole += "; it is older than what this node keeps"
	}
	return a.println(whole)
}
