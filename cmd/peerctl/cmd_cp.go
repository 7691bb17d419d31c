package main

import (
	"context"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

// defaultCopy is how much cp takes from a container unless told otherwise, in bytes.
const defaultCopy = 16 << 30

// cpFlags are those of cp.
type cpFlags struct {
	peer string
	max  int64
}

func cmdCp(a *app) *cobra.Command {
	f := cpFlags{max: defaultCopy}
	cmd := &cobra.Command{
		Use:   "cp WORKLOAD:PATH LOCAL | cp LOCAL WORKLOAD:PATH",
		Short: "Copy files into and out of a container",
		Long: `Copies a file, or a directory with all beneath it, into or out of a container that
runs. An existing directory gets it under its own name; otherwise the last name of the
target is its new one. A source that ends in /. means what is in the directory. - in
place of LOCAL is a tar archive on the input or the output.

It is done with the rights of the container's own program: what that cannot read is
left out and told, and it can write only to its scratch (/tmp and what its image
declares as volumes), within its disk. Permissions and times come along; owners,
set-user-ID bits and devices do not, nor links that lead out of LOCAL. A container may
be hostile: nothing is made but beneath LOCAL, and no more than --max.

A container on another peer must be yours, and that peer must have granted exec:
peerctl peers allow YOU --allow deploy,exec. Each copy is in its audit log, by its path.
A WASM guest has no files that others could reach.`,
		Example: `  peerctl cp app.conf web:/tmp/
  peerctl cp web:/tmp/report.csv .
  peerctl cp site/. web:/tmp/site --peer bob
  peerctl cp web:/tmp - > tmp.tar`,
		Args: takes("a source", "a target (one of the two is WORKLOAD:PATH)"),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) > 1 || strings.ContainsAny(toComplete, "./") {
				return nil, cobra.ShellCompDirectiveDefault
			}
			names, _ := a.completeWorkloads(cmd, nil, toComplete)
			for i := range names {
				word, about, _ := strings.Cut(names[i], "\t")
				names[i] = cobra.CompletionWithDesc(word+":/", about)
			}
			return names, cobra.ShellCompDirectiveNoSpace
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.cp(cmd.Context(), f, args[0], args[1]) },
	}
	sizeVar(cmd.Flags(), &f.max, "max", "take at most this much from a container (default "+formatSize(defaultCopy)+")")
	a.peerFlag(cmd, &f.peer)
	return cmd
}

// place is one end of a copy.
type place struct{ workload, path string }

// parsePlace reads WORKLOAD:PATH, or a local path, of which workload is empty. What
// begins with . or / is local, whatever it holds, as is a drive of Windows.
func parsePlace(s string) (place, error) {
	name, p, ok := strings.Cut(s, ":")
	if !ok || strings.HasPrefix(s, ".") || filepath.IsAbs(s) || strings.HasPrefix(s, "/") || filepath.VolumeName(s) != "" {
		return place{path: s}, nil
	}
	if name == "" || p == "" {
		return place{}, usagef("%q is not WORKLOAD:PATH", s).hint("it looks like web:/tmp; a local file of that name is ./%s", s)
	}
	if !strings.HasPrefix(p, "/") {
		p = "/" + p
	}
	return place{workload: name, path: p}, nil
}

func (a *app) cp(ctx context.Context, f cpFlags, source, target string) error {
	from, err := parsePlace(source)
	if err != nil {
		return err
	}
	to, err := parsePlace(target)
	if err != nil {
		return err
	}
	if (from.workload == "") == (to.workload == "") {
		return usagef("cp copies between a workload and this machine").hint("one of the two is WORKLOAD:PATH, such as web:/tmp")
	}
	return a.withClient(func(c *control.Client) error {
		p := a.progress()
		each := func(r control.CopyReport) { p.bytes("copying", r.Bytes, 0) }
		var did control.CopyReport
		var err error
		switch {
		case to.workload != "" && from.path == "-":
			did, err = c.Copy(ctx, to.workload, f.peer, control.Copy{Path: to.path, In: true}, control.Streams{Stdin: a.in})
		case to.workload != "":
			did, err = c.CopyIn(ctx, from.path, to.workload, f.peer, to.path, each)
		case to.path == "-":
			if isTerminal(a.out) {
				return usagef("the archive would go to the terminal").hint("pass it on, as in: peerctl cp %s - | tar -x", source)
			}
			did, err = c.Copy(ctx, from.workload, f.peer, control.Copy{Path: from.path}, control.Streams{Stdout: a.out})
		default:
			did, err = c.CopyOut(ctx, from.workload, f.peer, from.path, to.path, f.max, each)
		}
		p.clear()
		if err != nil {
			return err
		}
		return a.copied(did, to.path == "-" && to.workload == "")
	})
}

// copied tells what was copied; the archive may have the output for itself.
func (a *app) copied(did control.CopyReport, archive bool) error {
	if a.json() && !archive {
		if err := a.printJSON(did); err != nil {
			return err
		}
	}
	if did.Skipped > 0 {
		a.note("left out: %d, the first of them %s", did.Skipped, did.First)
		return exitStatus(exitFailure)
	}
	return nil
}
