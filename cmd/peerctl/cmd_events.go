package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func eventTypes() []string {
	return []string{"trust", "admission", "workload", "tunnel", "connection"}
}

func cmdEvents(a *app) *cobra.Command {
	q := control.EventQuery{Last: 20}
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Show what happens on this node",
		Long: `Shows the last events of this node and, with -f, those to come: changes of trust,
requests taken and refused, states of workloads, gateways and connections. With
-o json each is one line. Who reads too slowly loses some and is told how many;
what must not be lost is in the audit log.`,
		Example: `  peerctl events -f
  peerctl events -f --type workload,tunnel -o json`,
		Args:              takes(),
		RunE:              func(cmd *cobra.Command, _ []string) error { return a.events(cmd.Context(), q) },
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	flags := cmd.Flags()
	flags.BoolVarP(&q.Follow, "follow", "f", false, "go on until Ctrl-C")
	countVar(flags, &q.Last, "last", "n", "how many of the last events (default 20)")
	flags.StringSliceVar(&q.Types, "type", nil, "only these `TYPES`: "+strings.Join(eventTypes(), ", "))
	completeFlag(cmd, "type", cobra.FixedCompletions(eventTypes(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (a *app) events(ctx context.Context, q control.EventQuery) error {
	return a.withClient(func(c *control.Client) error {
		err := c.Events(ctx, q, func(e control.Event) error {
			if a.json() {
				return a.printLine(e)
			}
			if e.Missed > 0 {
				a.note("%d events were missed here", e.Missed)
			}
			return a.println(eventLine(e))
		})
		if errors.Is(err, context.Canceled) && q.Follow {
			return nil // that is how following ends
		}
		return err
	})
}

func eventLine(e control.Event) string {
	parts := []string{e.Time.Local().Format("15:04:05"), fmt.Sprintf("%-10s", e.Type), e.Event}
	for _, s := range []string{e.Peer, e.Subject} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	if e.Rule != "" {
		parts = append(parts, "["+e.Rule+"]")
	}
	if e.Detail != "" {
		parts = append(parts, "- "+e.Detail)
	}
	return strings.Join(parts, " ")
}

// printLine writes v to stdout as one line of JSON.
func (a *app) printLine(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
