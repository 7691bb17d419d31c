package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"peercompute/pkg/control"
)

// thens are what can become of running work when lending closes.
func thens() []string { return []string{"keep", "pause", "stop"} }

func cmdLend(a *app) *cobra.Command {
	var l struct {
		cpus, memory, disk, reserve int64
		workloads                   int
		when, then                  string
		gfuel, second               float64
		reset                       bool
	}
	cmd := &cobra.Command{
		Use:   "lend",
		Short: "Show or set what this machine lends to all peers, and when",
		Long: `Without flags it shows what this machine lends to all peers together, and
whether it does now. Flags change it at once and for good: they go before the
[lend] section of peerd.toml, until --reset. What each peer may use of it is in
its grant (peerctl peers allow).

--when takes always, idle, or windows of this machine's local time with commas;
a window may cross midnight, and days may stand before it. Idle means that nobody
types at a terminal here and that others than our lent work use little, for five
minutes. Outside, peers' new work is refused with the time it opens again, and
--then says what becomes of running work: keep lets it go on; pause freezes
containers, ends services that keep no state (visitors get 503) and lets jobs go
on; stop ends all of it, and starts it again when lending opens. Your own work
is taken as ever.

Prices are in whatever you and your peers reckon in. peerctl balance sets off with
them what was used of each other; nothing is refused for what is owed.`,
		Example: `  peerctl lend
  peerctl lend --cpus 4 --memory 8G --disk 20G --workloads 20 --reserve-memory 2G
  peerctl lend --when 22:00-07:00 --then pause
  peerctl lend --when "mon-fri 20:00-07:00, sat,sun 00:00-24:00" --then stop
  peerctl lend --when idle --then stop
  peerctl lend --price-per-gfuel 0.02 --price-per-container-second 0.000005
  peerctl lend --reset`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			change := control.LendChange{
				Workloads: given(cmd, "workloads", l.workloads), MilliCPU: given(cmd, "cpus", l.cpus), Memory: given(cmd, "memory", l.memory),
				Disk: given(cmd, "disk", l.disk), Reserve: given(cmd, "reserve-memory", l.reserve),
				When: given(cmd, "when", l.when), Then: given(cmd, "then", l.then),
				PriceGFuel: given(cmd, "price-per-gfuel", l.gfuel), PriceContainerSecond: given(cmd, "price-per-container-second", l.second),
			}
			if l.reset && change != (control.LendChange{}) {
				return usagef("--reset stands alone").hint("see: peerctl lend --help")
			}
			return a.lend(cmd.Context(), change, l.reset)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	flags := cmd.Flags()
	cpusVar(flags, &l.cpus, "cpus", "processor that is lent in all; caps, so it may be more than there is")
	sizeVar(flags, &l.memory, "memory", "memory that is lent in all, such as 8G")
	sizeVar(flags, &l.disk, "disk", "scratch space that is lent in all")
	countVar(flags, &l.workloads, "workloads", "", "workloads at once in all")
	sizeVar(flags, &l.reserve, "reserve-memory", "memory that stays for this machine whatever is asked; 0 = none")
	flags.StringVar(&l.when, "when", "", "always, idle, or windows such as `22:00-07:00`")
	thenVar(cmd, flags, &l.then)
	flags.Var(&value[float64]{to: &l.gfuel, parse: parsePrice, kind: "PRICE"}, "price-per-gfuel", "what 1,000,000,000 fuel cost; 0 = nothing")
	flags.Var(&value[float64]{to: &l.second, parse: parsePrice, kind: "PRICE"}, "price-per-container-second", "what a second of a container costs; 0 = nothing")
	flags.BoolVar(&l.reset, "reset", false, "drop all that was set, so that peerd.toml counts again")
	completeFlag(cmd, "when", cobra.FixedCompletions([]string{"always", "idle", "22:00-07:00"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func thenVar(cmd *cobra.Command, flags *pflag.FlagSet, to *string) {
	flags.Var(&value[string]{to: to, parse: parseThen, kind: "WHAT"}, "then", "what becomes of running work: "+strings.Join(thens(), ", "))
	completeFlag(cmd, "then", cobra.FixedCompletions(thens(), cobra.ShellCompDirectiveNoFileComp))
}

func parseThen(s string) (string, error) {
	if !slices.Contains(thens(), s) {
		return "", fmt.Errorf("choose one of %s", strings.Join(thens(), ", "))
	}
	return s, nil
}

func parsePrice(s string) (float64, error) {
	p, err := strconv.ParseFloat(s, 64)
	if err != nil || p < 0 || math.IsNaN(p) || math.IsInf(p, 0) {
		return 0, errors.New("a price is a number from 0 up, such as 0.02")
	}
	return p, nil
}

func (a *app) lend(ctx context.Context, change control.LendChange, reset bool) error {
	return a.withClient(func(c *control.Client) error {
		var l control.Lend
		var err error
		switch {
		case reset:
			l, err = c.ResetLend(ctx)
		case change == (control.LendChange{}):
			l, err = c.Lend(ctx)
		default:
			l, err = c.SetLend(ctx, change)
		}
		if err != nil {
			return err
		}
		if a.json() {
			fill(&l.Set)
			return a.printJSON(l)
		}
		return a.showLend(l)
	})
}

func (a *app) showLend(l control.Lend) error {
	t := newTable(a.out)
	t.row("now:", a.lendingLine(l.State))
	t.row("when:", l.When)
	t.row("then:", map[string]string{
		"keep":  "running work is kept",
		"pause": "running work is paused: containers frozen, services ended, jobs go on",
		"stop":  "running work is stopped, and started again when it opens",
	}[l.Then])
	if l.Idle != "" {
		t.row("measured:", l.Idle)
	}
	if l.Reserve > 0 {
		available := ""
		if l.Available > 0 {
			available = ", " + formatSize(l.Available) + " available now"
		}
		t.row("keeps:", formatSize(l.Reserve)+" of memory for this machine"+available)
	}
	if l.PriceGFuel != 0 || l.PriceContainerSecond != 0 {
		t.row("price:", fmt.Sprintf("%g for 1,000,000,000 fuel, %g for a second of a container", l.PriceGFuel, l.PriceContainerSecond))
	}
	t.row("from:", "peerd.toml or its defaults"+map[bool]string{true: "", false: ", and set here: " + strings.Join(l.Set, ", ")}[len(l.Set) == 0])
	if err := t.flush(); err != nil {
		return err
	}
	fmt.Fprintln(a.out)
	u := newTable(a.out, "LENT IN ALL", "USED", "OF")
	r := l.Used.Resources
	u.row("workloads", fmt.Sprint(l.Used.Workloads), fmt.Sprint(l.Workloads))
	u.row("cpus", formatCPUs(r.MilliCPU), formatCPUs(l.MilliCPU))
	u.row("memory", formatSize(r.Memory), formatSize(l.Memory))
	u.row("disk", formatSize(r.Disk), formatSize(l.Disk))
	return u.flush()
}

// lendingLine says whether peers' new work is taken now.
func (a *app) lendingLine(s control.LendState) string {
	if s.Open {
		if s.Closes.IsZero() {
			return "open"
		}
		return "open until " + a.moment(s.Closes)
	}
	line := "paused: " + s.Reason
	switch s.Then {
	case "pause":
		line += "; running work is paused"
	case "stop":
		line += "; running work is stopped"
	default:
		line += "; running work goes on"
	}
	return line
}
