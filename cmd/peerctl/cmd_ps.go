package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

func cmdPs(a *app) *cobra.Command {
	var peer string
	cmd := &cobra.Command{
		Use:     "ps",
		Aliases: []string{"ls"},
		Short:   "List workloads: those that run here, and yours elsewhere",
		Example: `  peerctl ps
  peerctl ps --peer bob -o json`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.ps(cmd.Context(), peer) },
	}
	a.peerFlag(cmd, &peer)
	return cmd
}

// peerFlag adds --peer, which narrows a search.
func (a *app) peerFlag(cmd *cobra.Command, peer *string) {
	cmd.Flags().StringVar(peer, "peer", "", "only workloads that run on this peer: its `NAME`, or self")
	completeFlag(cmd, "peer", a.completePeerFlag(cobra.CompletionWithDesc(self, "this machine")))
}

func (a *app) ps(ctx context.Context, peer string) error {
	return a.withClient(func(c *control.Client) error {
		list, err := c.Workloads(ctx, peer)
		if err != nil {
			return err
		}
		if a.json() {
			if list == nil {
				list = []control.Workload{}
			}
			return a.printJSON(list)
		}
		if len(list) == 0 {
			a.note("no workloads; start one with: peerctl deploy hello.wasm")
			return nil
		}
		t := newTable(a.out, "NAME", "ID", "PEER", "OWNER", "KIND", "STATE", "URL", "AGE")
		for _, w := range list {
			t.row(w.Name, shortID(w.ID), w.Peer, w.Owner, string(w.Kind), stateOf(w), w.URL, a.age(w.Created))
		}
		return t.flush()
	})
}

const (
	killed    = "killed: " // how a reason begins that says which limit a run met
	maxReason = 60         // characters of one in a table
)

// stateOf is a workload's state with the number that belongs to it, or the limit for
// which it was ended.
func stateOf(w control.Workload) string {
	p := w.Status.Progress
	switch {
	case strings.HasPrefix(w.Status.Reason, killed) && (w.State.Final() || w.State == mesh.Pending):
		return cut(w.Status.Reason, maxReason)
	case w.State == mesh.Exited:
		return fmt.Sprintf("exited (%d)", w.Status.ExitCode)
	case w.State == mesh.Paused && w.Status.Reason != "":
		return "paused: " + w.Status.Reason
	case w.State == mesh.Pulling && p != nil && p.Total > 0:
		return fmt.Sprintf("pulling %d%%", min(100, p.Done*100/p.Total))
	case w.State == mesh.Running && w.Status.Held != "":
		return "running: " + cut(w.Status.Held, maxReason)
	case w.State == mesh.Running && w.Status.Idle:
		return "running (idle)"
	case w.State == mesh.Running && w.Status.Health != "":
		return "running (" + w.Status.Health + ")"
	}
	return string(w.State)
}
