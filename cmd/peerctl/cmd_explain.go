package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

func cmdExplain(a *app) *cobra.Command {
	f := deployFlags{dryRun: true}
	cmd := &cobra.Command{
		Use:   "explain IMAGE|FILE.wasm",
		Short: "Show what would be decided of a deploy, rule by rule",
		Long: `Asks the machine that would run it what it would decide, and does nothing. Each
rule is shown with what is asked for, what is in use already and the limit. It is
the same as deploy --dry-run, and exits with 1 if the deploy would be refused.`,
		Example: `  peerctl explain nginx:1.27 --peer bob --port 80 --memory 2G
  peerctl explain hello.wasm --peer bob -o json`,
		Args:              programArgs("an IMAGE or a FILE.wasm", false),
		ValidArgsFunction: completeModules,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.settle(cmd); err != nil {
				return err
			}
			return a.deploy(cmd.Context(), &f, args[0], args[1:])
		},
	}
	a.addDeployFlags(cmd, &f)
	return cmd
}

// askDecision prints the whole decision, and fails as the deploy would.
func (a *app) askDecision(ctx context.Context, d control.Deploy) error {
	return a.withClient(func(c *control.Client) error {
		e, err := c.Explain(ctx, d)
		if err != nil {
			return err
		}
		if a.json() {
			err = a.printJSON(e)
		} else {
			err = a.printChecks(e.Checks)
		}
		if err != nil || e.Allow {
			return err
		}
		return wouldRefuse(e)
	})
}

func (a *app) printChecks(checks []mesh.Check) error {
	t := newTable(a.out, "RULE", "WANT", "IN USE", "LIMIT", "PASSES")
	for _, c := range checks {
		pass := "no"
		if c.Pass {
			pass = "yes"
		}
		t.row(c.Rule, c.Want, c.Held, c.Limit, pass)
	}
	return t.flush()
}

// wouldRefuse is the refusal that a deploy would meet, with one next step that
// lifts every limit in its way that the peer's owner can lift.
func wouldRefuse(e control.Explanation) error {
	who := e.Peer
	if who == self {
		who = "this machine"
	}
	err := mesh.Errorf(mesh.Denied, "it decides by no rule at all").WithRule("default")
	var ask, other, unset []string
	for _, c := range e.Checks {
		switch {
		case c.Pass:
			continue
		case ask == nil && other == nil:
			err = mesh.Errorf(mesh.Denied, "%s would refuse: %s", who, c.Reason).WithRule(c.Rule)
		}
		switch {
		case c.Ask != "":
			ask = append(ask, c.Ask)
		case c.Rule == "secret.missing":
			unset = append(unset, c.Want)
			other = append(other, c.Rule)
		default:
			other = append(other, c.Rule)
		}
	}
	switch {
	case len(unset) == len(other) && unset != nil && ask == nil:
		set := "peerctl secret set " + unset[0]
		if e.Peer != self {
			set += " --peer " + e.Peer
		}
		err = err.WithHint("set each that is missing first: %s   missing: %s", set, strings.Join(unset, " "))
	case ask != nil && e.Peer != self:
		err = err.WithHint("ask %s for: peerctl peers allow %s %s", e.Peer, e.Asker, strings.Join(ask, " "))
	case len(other) > 0 && e.Peer != self:
		err = err.WithHint("no grant lifts %s; choose another --peer, or ask for less", strings.Join(other, ", "))
	case len(other) > 0:
		err = err.WithHint("ask for less, or change what stands against it: %s", strings.Join(other, ", "))
	}
	return &control.RemoteError{Cause: err, Peer: strings.TrimPrefix(e.Peer, self)}
}
