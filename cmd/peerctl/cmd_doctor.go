package main

import (
	"strings"
	"unicode/utf8"

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
					err = mesh.Errorf(mesh.Unavailable, "%d of %d checks found a problem", problems, len(checks)).WithHint("what to do is said beneath each")
				}
				return err
			})
		},
	}
}

// showChecks says what was found, and below it what to do next, as wide as the terminal is.
func (a *app) showChecks(checks []control.Check) error {
	t := newTable(a.out, "CHECK", "STATE", "DETAIL")
	before := len("CHECK")
	for _, c := range checks {
		before = max(before, len(c.Name))
	}
	room := columns(a.out) - before - len(control.CheckWarning) - 2*gap
	for _, c := range checks {
		lines := fold(clean(c.Detail), room)
		if c.Fix != "" {
			lines = append(lines, fold("next: "+clean(c.Fix), room)...)
		}
		t.row(c.Name, c.State, lines[0])
		for _, l := range lines[1:] {
			t.below(2, l)
		}
	}
	return t.flush()
}

// fold breaks a text between words into lines of at most so many characters; below one
// there is no bound.
func fold(text string, most int) (lines []string) {
	line := ""
	for _, word := range strings.Fields(text) {
		switch {
		case line == "":
			line = word
		case most > 0 && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > most:
			lines, line = append(lines, line), word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}
