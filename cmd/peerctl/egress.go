package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"peercompute/pkg/mesh"
)

// egressFlags are what a container may connect to: nothing by default.
type egressFlags struct {
	text    string
	egress  mesh.Egress
	hosts   []string
	network string
}

func (f *egressFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.Var(&value[string]{to: &f.text, parse: f.parse, kind: "WHAT"}, "egress",
		"what it may connect to: none, internet, or allow:HOST:PORT,… (default none)")
	flags.Var(&value[string]{to: &f.network, parse: parseNetwork, kind: "NAME"}, "network",
		"a private network of your containers on that peer: those that name it reach each other by name")
	completeFlag(cmd, "egress", cobra.FixedCompletions([]string{"none", "internet", "allow:"}, cobra.ShellCompDirectiveNoFileComp|cobra.ShellCompDirectiveNoSpace))
}

func (f *egressFlags) parse(s string) (_ string, err error) {
	f.egress, f.hosts, err = mesh.ParseEgress(s)
	return s, err
}

func parseNetwork(s string) (string, error) {
	if !mesh.ValidLabel(s) {
		return "", fmt.Errorf("a network's name has at most %d characters of a-z, 0-9 and inner -", mesh.MaxName)
	}
	return s, nil
}

// apply puts them into a spec, beside the hosts that are there already.
func (f *egressFlags) apply(s *mesh.Spec) error {
	s.Network = f.network
	if f.text == "" {
		return nil
	}
	if len(s.Hosts) > 0 {
		return usagef("--egress contradicts --allow-host").hint("name all hosts with one of them")
	}
	s.Egress, s.Hosts = f.egress, f.hosts
	return nil
}

// misplaced refuses what a WASM program could do nothing with.
func (f *egressFlags) misplaced(wasm bool) error {
	switch {
	case wasm && f.network != "":
		return usagef("--network is for containers: a WASM program has no sockets")
	case wasm && f.egress == mesh.EgressInternet:
		return usagef("--egress internet is for containers: a WASM program names its hosts, with --allow-host")
	}
	return nil
}
