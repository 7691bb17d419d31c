package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdStatus(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show how this machine's node is doing",
		Example: `  peerctl status
  peerctl status -o json`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.status(cmd.Context()) },
	}
}

func (a *app) status(ctx context.Context) error {
	return a.withClient(func(c *control.Client) error {
		s, err := c.Status(ctx)
		if err != nil {
			return err
		}
		if a.json() {
			return a.printJSON(withoutNulls(s))
		}
		return a.showStatus(s)
	})
}

// withoutNulls makes every list one, so that programs need not look for null.
func withoutNulls(s control.Status) control.Status {
	fill(&s.Addrs)
	fill(&s.Runtimes)
	fill(&s.Routes)
	fill(&s.Tunnels)
	fill(&s.Warnings)
	fill(&s.PeerStates)
	return s
}

func fill[T any](list *[]T) {
	if *list == nil {
		*list = []T{}
	}
}

func (a *app) showStatus(s control.Status) error {
	t := newTable(a.out)
	t.row(s.Role+":", s.ID.String())
	t.row("version:", fmt.Sprintf("%s, up %s", s.Version, roughly(s.Uptime)))
	for _, addr := range s.Addrs {
		t.row("address:", addr)
	}
	t.row("peers:", fmt.Sprintf("%d trusted, %d connected", s.Peers, s.Connected))
	a.stateRows(t, s.PeerStates)
	if len(s.Runtimes) > 0 { // a gateway has none, and runs nothing
		t.row("workloads:", fmt.Sprintf("%d running here", s.Workloads))
		if s.Volumes > 0 {
			t.row("volumes:", fmt.Sprintf("%d, with %s of the disk set aside", s.Volumes, formatSize(s.VolumesSize)))
		}
	}
	if s.Lending != nil {
		t.row("lending:", a.lendingLine(*s.Lending))
	}
	for _, r := range s.Runtimes {
		t.row("runtime:", fmt.Sprintf("%s, %s", r.Kind, either(r.Ready, "ready", "not ready"))+detail(r.Detail))
	}
	for _, tunnel := range s.Tunnels {
		t.row("tunnel:", fmt.Sprintf("%s, %s", tunnel.Peer, upDown(tunnel.Up))+detail(tunnel.Address)+detail(tunnel.Detail))
	}
	for _, r := range s.Routes {
		t.row("route:", fmt.Sprintf("%s, %s, workload %s through %s", r.URL, upDown(r.Up), shortID(r.Workload), r.Peer))
	}
	for _, w := range s.Warnings {
		t.row("warning:", w)
	}
	return t.flush()
}

func detail(s string) string {
	if s == "" {
		return ""
	}
	return ", " + s
}

func upDown(up bool) string { return either(up, "up", "down") }

func either(cond bool, yes, no string) string {
	if cond {
		return yes
	}
	return no
}
