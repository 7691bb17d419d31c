package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

// rights are what a peer can be allowed to do here.
func rights() []string { return []string{"observe", "deploy", "migrate", "route", "publish", "exec"} }

// grantFlags are the flags of a grant; those that were not given change nothing.
type grantFlags struct {
	allow     []string
	cpus      int64
	memory    int64
	disk      int64
	workloads int
	names     int
	requests  int
	fuelDay   uint64
	images    []string
	egress    []string
	signedBy  []string
	until     control.Until
}

func addGrantFlags(cmd *cobra.Command, f *grantFlags) {
	flags := cmd.Flags()
	flags.Var(&value[[]string]{to: &f.allow, parse: parseRights, kind: "RIGHTS"}, "allow",
		"what it may do here, all of it, with commas: "+strings.Join(rights(), ", ")+"; or none")
	cpusVar(flags, &f.cpus, "cpus", "processor for all its workloads together, such as 2 or 0.5")
	sizeVar(flags, &f.memory, "memory", "memory for all its workloads together, such as 1G")
	sizeVar(flags, &f.disk, "disk", "scratch space for all its workloads together")
	countVar(flags, &f.workloads, "max-workloads", "", "workloads at once")
	countVar(flags, &f.names, "max-names", "", "public names at once (on a gateway)")
	flags.Var(&value[int]{to: &f.requests, parse: parseRate, kind: "RATE"}, "requests", "signed requests, such as 60/min")
	flags.Var(&value[uint64]{to: &f.fuelDay, parse: parseFuel, kind: "FUEL"}, "fuel-per-day", "fuel for all its WASM work of a day (UTC), such as 100T")
	flags.Var(&value[[]string]{to: &f.images, parse: parseWords, kind: "LIST"}, "images",
		"what it may run, all of it, with commas: sha256:… digests, PREFIX/, names such as nginx:1.*, wasm (any module), pushed (what it pushes itself), any, none")
	flags.Var(&value[[]string]{to: &f.egress, parse: parseWords, kind: "LIST"}, "egress",
		"what its workloads may connect to: none, internet, allow (hosts that the workload lists), private (which may be this machine's own and its networks')")
	flags.Var(&value[[]string]{to: &f.signedBy, parse: parseSigners, kind: "FILES"}, "signed-by",
		"what it runs must be signed by one of these public keys of cosign's: files, with commas; none = not asked for")
	flags.Var(&value[control.Until]{to: &f.until, parse: parseUntil, kind: "WHEN"}, "until",
		"when this ends: 2026-12-31, 30d or never; then it is denied at once and its workloads stop")
	completeFlag(cmd, "allow", completeRights)
	completeFlag(cmd, "egress", cobra.FixedCompletions([]string{"none", "internet", "allow", "private"}, cobra.ShellCompDirectiveNoFileComp))
	completeFlag(cmd, "images", cobra.FixedCompletions([]string{"any", "wasm", "pushed", "none"}, cobra.ShellCompDirectiveNoFileComp))
}

// parseWords reads a list with commas; "none" is the empty one.
func parseWords(s string) ([]string, error) {
	list := []string{}
	if s == "none" || s == "" {
		return list, nil
	}
	for word := range strings.SplitSeq(s, ",") {
		switch word = strings.TrimSpace(word); {
		case word == "":
			return nil, errors.New("a word of the list is empty")
		case word == "none":
			return nil, errors.New("none stands alone")
		case !slices.Contains(list, word):
			list = append(list, word)
		}
	}
	return list, nil
}

func (f *grantFlags) change(cmd *cobra.Command) control.GrantChange {
	return control.GrantChange{
		Allow:     given(cmd, "allow", f.allow),
		Workloads: given(cmd, "max-workloads", f.workloads),
		MilliCPU:  given(cmd, "cpus", f.cpus),
		Memory:    given(cmd, "memory", f.memory),
		Disk:      given(cmd, "disk", f.disk),
		Names:     given(cmd, "max-names", f.names),
		Requests:  given(cmd, "requests", f.requests),
		FuelDay:   given(cmd, "fuel-per-day", f.fuelDay),
		Images:    given(cmd, "images", f.images),
		Egress:    given(cmd, "egress", f.egress),
		SignedBy:  given(cmd, "signed-by", f.signedBy),
		Until:     given(cmd, "until", f.until),
	}
}

func given[T any](cmd *cobra.Command, flag string, v T) *T {
	if !cmd.Flags().Changed(flag) {
		return nil
	}
	return &v
}

// parseRights reads a list of rights; "none" and "" are the empty one.
func parseRights(s string) ([]string, error) {
	list := []string{}
	if s == "none" || s == "" {
		return list, nil
	}
	for word := range strings.SplitSeq(s, ",") {
		word = strings.TrimSpace(word)
		if !slices.Contains(rights(), word) {
			return nil, fmt.Errorf("there is no right %q; choose of %s, or none", word, strings.Join(rights(), ", "))
		}
		if slices.Contains(list, word) {
			return nil, errors.New("a right is named twice")
		}
		list = append(list, word)
	}
	slices.Sort(list)
	return list, nil
}

// completeRights completes the last of a list with commas.
func completeRights(_ *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	before := typed[:strings.LastIndexByte(typed, ',')+1]
	var found []cobra.Completion
	for _, r := range rights() {
		if !slices.Contains(strings.Split(before, ","), r) {
			found = append(found, before+r)
		}
	}
	return found, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

// describeQuotas is one line of the quotas that its rights make matter; -o json
// shows all of them.
func describeQuotas(g control.Grant) string {
	var parts []string
	if slices.Contains(g.Allow, "deploy") {
		if g.Workloads > 0 {
			parts = append(parts, plural(g.Workloads, "workload"))
		}
		r := g.Resources
		r.PIDs, r.Fuel = 0, 0
		if r := describeResources(r); r != "" {
			parts = append(parts, r)
		}
		if !slices.Contains(g.Images, "any") {
			parts = append(parts, "only "+wordsOr(g.Images, "no image"))
		}
		if len(g.Egress) > 0 {
			parts = append(parts, "egress "+strings.Join(g.Egress, " "))
		}
		if len(g.SignedBy) > 0 {
			parts = append(parts, "signed")
		}
	}
	if slices.Contains(g.Allow, "publish") && g.Names > 0 {
		parts = append(parts, plural(g.Names, "name"))
	}
	if g.Ended {
		parts = append([]string{"ENDED"}, parts...)
	} else if !g.Until.IsZero() {
		parts = append(parts, "ends "+untilText(g.Until))
	}
	return strings.Join(parts, ", ")
}

// wordsOr is a list for people, or what to say where it is empty.
func wordsOr(list []string, empty string) string {
	if len(list) == 0 {
		return empty
	}
	return strings.Join(list, " ")
}

// missingQuotas names the flags of the quotas without which a right is worth
// nothing: a zero quota means nothing of it.
func missingQuotas(g control.Grant) []string {
	var missing []string
	need := func(have int64, flag string) {
		if have == 0 && !slices.Contains(missing, flag) {
			missing = append(missing, flag)
		}
	}
	if slices.Contains(g.Allow, "deploy") {
		need(int64(g.Workloads), "--max-workloads")
		need(g.Resources.MilliCPU, "--cpus")
		need(g.Resources.Memory, "--memory")
		need(int64(len(g.Images)), "--images")
	}
	if slices.Contains(g.Allow, "publish") {
		need(int64(g.Names), "--max-names")
	}
	if len(g.Allow) > 0 {
		need(int64(g.Requests), "--requests")
	}
	return missing
}
