package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

func cmdPeersShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show PEER",
		Short: "Show what one peer may do here, and how much of it is used",
		Example: `  peerctl peers show alice
  peerctl peers show alice -o json`,
		Args:              takes("a PEER (its name or the start of its ID)"),
		ValidArgsFunction: a.completePeers,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.peerPage(cmd.Context(), args[0]) },
	}
}

func (a *app) peerPage(ctx context.Context, ref string) error {
	return a.withClient(func(c *control.Client) error {
		p, err := c.Peer(ctx, ref)
		if err != nil {
			return err
		}
		if a.json() {
			return a.printJSON(fullPeer(p))
		}
		g := p.Grant
		t := newTable(a.out)
		t.row("peer:", p.Name+", "+p.ID.String())
		t.row("state:", describeState(p.Liveness)+detail(describePath(p.Liveness))+detail(p.Remote))
		if s := a.seen(p.Liveness); s != "" {
			t.row("seen:", s+detail(p.Liveness.Version))
		}
		if s := describeFree(p.Liveness.Free); s != "" {
			t.row("free there:", s)
		}
		for _, addr := range p.Addrs {
			t.row("address:", addr)
		}
		t.row("trusted since:", p.Added.Local().Format("2006-01-02 15:04"))
		switch {
		case g.Ended:
			t.row("ended:", untilText(g.Until)+"; it is denied, and its workloads here are held")
		default:
			t.row("ends:", untilText(g.Until))
		}
		t.row("may:", wordsOr(g.Allow, "do nothing here"))
		if err := t.flush(); err != nil {
			return err
		}
		if len(g.Allow) == 0 {
			return nil
		}
		fmt.Fprintln(a.out)
		return a.usageTable(g, p.Usage)
	})
}

// usageTable sets what is used against each limit.
func (a *app) usageTable(g control.Grant, u *control.Usage) error {
	t := newTable(a.out, "LIMIT", "USED", "OF")
	row := func(name string, used func(control.Usage) string, of, note string) {
		text := ""
		if u != nil && used != nil {
			text = used(*u)
		}
		cells := []string{name, text, of}
		if note != "" {
			cells = append(cells, note)
		}
		t.row(cells...)
	}
	if slices.Contains(g.Allow, "deploy") {
		row("workloads", func(u control.Usage) string { return fmt.Sprint(u.Workloads) }, fmt.Sprint(g.Workloads), "")
		row("cpus", func(u control.Usage) string { return formatCPUs(u.Resources.MilliCPU) }, formatCPUs(g.Resources.MilliCPU), "")
		row("memory", func(u control.Usage) string { return formatSize(u.Resources.Memory) }, formatSize(g.Resources.Memory), "")
		row("disk", func(u control.Usage) string { return formatSize(u.Resources.Disk) }, formatSize(g.Resources.Disk), "")
		note := "of WASM work; containers burn none"
		if u != nil && u.FuelToday >= g.FuelDay {
			note = "used up; opens again " + u.FuelOpens.Local().Format("2006-01-02 15:04")
		}
		row("fuel a day", func(u control.Usage) string { return formatFuel(u.FuelToday) }, formatFuel(g.FuelDay), note)
		images := strings.Join(g.Images, ", ")
		switch {
		case slices.Contains(g.Images, "any"):
			images, note = "any", "whatever it likes; narrow it with: peerctl peers allow … --images"
		case len(g.Images) == 0:
			images, note = "none", "so it can run nothing"
		default:
			note = ""
		}
		row("images", nil, images, note)
		row("egress", nil, wordsOr(g.Egress, "none"), "")
		row("signed by", nil, wordsOr(signers(g.SignedBy), "anybody or nobody"), "")
	}
	if slices.Contains(g.Allow, "publish") {
		row("public names", func(u control.Usage) string { return fmt.Sprint(u.Names) }, fmt.Sprint(g.Names), "")
	}
	row("requests", nil, fmt.Sprintf("%d a minute", g.Requests), "")
	return t.flush()
}
