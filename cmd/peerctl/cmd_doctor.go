package main

import (
	"github.com/spf13/cobra"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

func cmdDoctor(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Look whether this machine's node is well, and say how to mend it",
		Long: `Looks at the home directory, disk, clock, trust, peers, runtimes and gateways, each
with what to do about it. Ends with status 1 if something does not work; a warning
is none. When peerd does not run: peerd doctor.`,
		Example: `  peerctl doctor
  peerctl doctor -o json`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withClient(func(c *control.Client) error {
				checks, err := c.Doctor(cmd.Context())
				if err != nil {
					return err
				}
				if a.json() {
					fill(&checks)
					err = a.printJSON(checks)
				} else {
					err = a.showChecks(checks)
				}
				problems := 0
				for _, c := range checks {
					if c.State == control.CheckProblem {
						problems++
					}
				}
				if err == nil && problems > 0 {
					err = mesh.Errorf(mesh.Unavailable, "%d of %d checks found a problem", problems, len(checks)).WithHint("what to do is said beside each")
				}
				return err
			})
		},
	}
}

func (a *app) showChecks(checks []control.Check) error {
	t := newTable(a.out, "CHECK", "STATE", "DETAIL", "FIX")
	for _, c := range checks {
		t.row(c.Name, c.State, c.Detail, c.Fix)
	}
	return t.flush()
}
