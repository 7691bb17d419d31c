package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"peercompute/pkg/control"
)

func cmdTop(a *app) *cobra.Command {
	var peer string
	every := 2 * time.Second
	cmd := &cobra.Command{
		Use:   "top [WORKLOAD…]",
		Short: "Watch what workloads use",
		Long: `Shows what stats shows, again and again until Ctrl-C. Where stdout is no terminal
it is one table, as of stats. With -o json each line is one workload at one
moment, and it goes on.`,
		Example: `  peerctl top
  peerctl top web --every 5s
  peerctl top -o json`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: a.completeWorkloads,
		RunE: func(cmd *cobra.Command, args []string) error {
			if every < time.Second {
				return usagef("--every is a second or more")
			}
			q := control.StatsQuery{Refs: args, Peer: peer, Every: every}
			switch {
			case a.json():
				return a.topLines(cmd.Context(), q)
			case !a.ansi(a.out):
				return a.stats(cmd.Context(), args, peer)
			}
			return a.topLive(cmd.Context(), q)
		},
	}
	durationVar(cmd.Flags(), &every, "every", "how often it is measured (default 2s)")
	a.peerFlag(cmd, &peer)
	return cmd
}

// topLines prints one JSON object for each workload and sample; rates need two.
func (a *app) topLines(ctx context.Context, q control.StatsQuery) error {
	enc := json.NewEncoder(a.out)
	enc.SetEscapeHTML(false)
	r := newRates()
	return a.withClient(func(c *control.Client) error {
		return c.Stats(ctx, q, func(s control.StatsSample) error {
			for _, u := range r.add(s) {
				if err := enc.Encode(u); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// The control sequences of the live view: another screen, which leaves the one
// before untouched, and its top left corner.
const (
	screenOn  = "\x1b[?1049h\x1b[?25l"
	screenOff = "\x1b[?25h\x1b[?1049l"
	home      = "\x1b[H"
	restOff   = "\x1b[K" // clears to the end of the line
	belowOff  = "\x1b[J" // clears what is below
)

func (a *app) topLive(ctx context.Context, q control.StatsQuery) error {
	return a.withClient(func(c *control.Client) error {
		on := false
		defer func() {
			if on {
				fmt.Fprint(a.out, screenOff)
			}
		}()
		r := newRates()
		return c.Stats(ctx, q, func(s control.StatsSample) error {
			if !on { // what is refused at once stays readable
				on = true
				fmt.Fprint(a.out, screenOn)
			}
			text, err := a.topPage(r.add(s), s.Missing)
			if err != nil {
				return err
			}
			_, err = a.out.Write(text)
			return err
		})
	})
}

// topPage draws one page over the last, no more than fits.
func (a *app) topPage(list []usage, missing map[string]string) ([]byte, error) {
	var table bytes.Buffer
	page := *a
	page.out = &table
	fmt.Fprintf(&table, "%s   %s; Ctrl-C ends it\n", a.now().Format(time.TimeOnly), plural(len(list), "workload"))
	for _, p := range slices.Sorted(maps.Keys(missing)) {
		fmt.Fprintln(&table, clean(p+" does not answer: "+missing[p]))
	}
	if err := printUsages(&page, list); err != nil {
		return nil, err
	}
	lines := strings.Split(strings.TrimRight(table.String(), "\n"), "\n")
	width, height := 1000, 1000
	if f, ok := a.out.(*os.File); ok {
		if w, h, err := term.GetSize(int(f.Fd())); err == nil && w > 0 && h > 1 {
			width, height = w, h
		}
	}
	var out bytes.Buffer
	out.WriteString(home)
	for i, l := range lines[:min(len(lines), height-1)] {
		r := []rune(l)
		l = string(r[:min(len(r), width)])
		if i > 0 {
			out.WriteString("\r\n")
		}
		out.WriteString(l + restOff)
	}
	out.WriteString(belowOff)
	return out.Bytes(), nil
}
