package main

import (
	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdAuditExport(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "export",
		Short:             "Write the whole log as lines of JSON that can be verified",
		Example:           `  peerctl audit export > audit.jsonl`,
		Args:              takes(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withClient(func(c *control.Client) error { return c.ExportAudit(cmd.Context(), a.out) })
		},
	}
}
