package main

import (
	"errors"
	"time"

	"github.com/spf13/cobra"

	"peercompute/pkg/mesh"
)

// healthFlags say how a workload is asked whether it is well.
type healthFlags struct {
	check    string
	parsed   *mesh.Health
	interval time.Duration
	timeout  time.Duration
	retries  int
}

func (f *healthFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.Var(&value[string]{to: &f.check, parse: f.parse, kind: "CHECK"}, "health",
		"how to see that it is well: http:/path[@PORT], tcp[:PORT] or cmd:'PROGRAM ARG…'; deploy waits for it, and what stays unhealthy is started again")
	durationVar(flags, &f.interval, "health-interval", "from one health check to the next (default "+mesh.DefaultHealthInterval.String()+")")
	durationVar(flags, &f.timeout, "health-timeout", "how long one may take (default "+mesh.DefaultHealthTimeout.String()+")")
	countVar(flags, &f.retries, "health-retries", "", "failures in a row after which it is started again (default 3)")
}

func (f *healthFlags) parse(s string) (string, error) {
	h, err := mesh.ParseHealth(s)
	if err != nil {
		e := mesh.AsError(err)
		return "", errors.New(e.Msg + "; " + e.Hint)
	}
	f.parsed = &h
	return s, nil
}

// apply puts the check into a spec.
func (f *healthFlags) apply(s *mesh.Spec) error {
	if f.parsed == nil {
		if f.interval != 0 || f.timeout != 0 || f.retries != 0 {
			return usagef("--health-interval, --health-timeout and --health-retries go with --health").
				hint("say what to ask, such as --health http:/healthz")
		}
		return nil
	}
	h := *f.parsed
	h.Interval, h.Timeout, h.Retries = f.interval, f.timeout, f.retries
	s.Health = &h
	return nil
}

// describeHealth is a line about a check and its times.
func describeHealth(h mesh.Health) string {
	h = h.WithDefaults()
	return h.String() + ", every " + h.Interval.String() + ", at most " + h.Timeout.String() + ", started again after " + plural(h.Retries, "failure")
}
