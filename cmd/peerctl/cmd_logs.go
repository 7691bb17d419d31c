package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"time"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

func cmdLogs(a *app) *cobra.Command {
	var peer string
	var o control.LogOptions
	cmd := &cobra.Command{
		Use:   "logs WORKLOAD",
		Short: "Print what a workload wrote",
		Long: `Prints the stdout and stderr of a workload, also after it ended. On a terminal,
control sequences other than colours are left out.

With -o json each line is an object with its time, by the clock of the machine
that runs the workload, its stream and its text. -n counts the lines of both
streams, before --since and --stream choose among them.`,
		Example: `  peerctl logs hello
  peerctl logs -f -n 20 hello
  peerctl logs --since 10m --stream stderr hello
  peerctl logs --since 2026-11-26T08:00:00Z -o json hello`,
		Args:              takes("a WORKLOAD (its name or the start of its ID)"),
		ValidArgsFunction: a.completeWorkloads,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.logs(cmd.Context(), args[0], peer, o)
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&o.Follow, "follow", "f", false, "go on until it ends or Ctrl-C")
	countVar(flags, &o.Tail, "tail", "n", "how many of the last lines (default all)")
	flags.Var(&value[time.Time]{to: &o.Since, parse: a.parseSince, kind: "WHEN"}, "since", "what was written after: 10m, 2h, 3d, or a time such as 2026-11-26T08:00:00Z")
	choiceVar(cmd, flags, &o.Stream, "stream", "", "one of the two only: stdout or stderr", mesh.Stdout, mesh.Stderr)
	a.peerFlag(cmd, &peer)
	return cmd
}

// parseSince reads a time, or how long ago it was. Without a zone it is local.
func (a *app) parseSince(s string) (time.Time, error) {
	for _, form := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", time.DateOnly} {
		if at, err := time.ParseInLocation(form, s, time.Local); err == nil && at.Year() >= 1970 {
			return at, nil
		}
	}
	d, err := parseSpan(s)
	if err != nil {
		return time.Time{}, errors.New("it looks like 10m, 2h, 3d, 2026-11-26T08:00 or 2026-11-26T08:00:00Z")
	}
	return a.now().Add(-d), nil
}

func (a *app) logs(ctx context.Context, ref, peer string, o control.LogOptions) error {
	return a.withClient(func(c *control.Client) error {
		if a.json() {
			enc := json.NewEncoder(a.out)
			enc.SetEscapeHTML(false)
			return c.LogLines(ctx, ref, peer, o, func(l control.LogLine) error { return enc.Encode(l) })
		}
		log, err := c.Logs(ctx, ref, peer, o)
		if err != nil {
			return err
		}
		defer log.Close()
		_, err = io.Copy(a.terminalOutput(a.out), log)
		return err
	})
}
