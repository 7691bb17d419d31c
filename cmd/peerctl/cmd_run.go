package main

import (
	"context"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

// runFlags are those of run.
type runFlags struct {
	workFlags
	quorumFlags
	any     bool
	detach  bool
	receipt string
}

func cmdRun(a *app) *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run FILE.wasm [ARGS…]",
		Short: "Run a WASM program to its end, as if it were here",
		Long: `Runs a WASI program on a peer or here: stdin goes in, stdout and stderr come out,
and its exit status becomes that of peerctl. The status is 125 if the program
could not be run, or the receipt of the peer that ran it contradicts what it sent;
124 if it ran out of time, 137 out of memory, 152 out of fuel, and 134 if it
trapped. Arguments of the program that begin with - go after --.

The peer signs a receipt of each run, which is kept: peerctl receipts ls.

With --replicas the nearest trusted peers run it at once, with the same input and
seed, and what they sign is compared. Output comes as soon as a quorum agrees on
output, log, exit, fuel and memory; peers that differ or fail by then are named,
and the status is 125 if there is no quorum. Slower ones run on: what they sign is
kept and compared when it comes, and shows in peerctl receipts ls. Input and output
of such a run are at most 16 MiB each, and stdout comes before stderr.`,
		Example: `  peerctl run count.wasm < words.txt
  peerctl run --any --fuel 20G primes.wasm 1000000
  peerctl run -d --peer bob count.wasm < words.txt
  peerctl run --replicas 3 --quorum 2 count.wasm < words.txt
  peerctl run --peer bob --memory 1G render.wasm -- --frame 7 > frame.png`,
		Args:              programArgs("a FILE.wasm", true),
		ValidArgsFunction: completeModules,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := anyOrPeer(f.any, f.peer); err != nil {
				return err
			}
			if err := f.quorumFlags.check(&f); err != nil {
				return err
			}
			if f.replicas > 0 {
				return a.runQuorum(cmd.Context(), &f, args[0], args[1:])
			}
			if f.detach && f.receipt != "" {
				return usagef("a queued job has no receipt yet").hint("take it later with: peerctl job result --receipt FILE JOB")
			}
			if f.detach {
				return a.submit(cmd.Context(), &f.workFlags, f.any, args[0], args[1:])
			}
			return a.runJob(cmd.Context(), &f, args[0], args[1:])
		},
	}
	a.addWorkFlags(cmd, &f.workFlags)
	f.quorumFlags.add(cmd)
	cmd.Flags().BoolVar(&f.any, "any", false, "on whichever trusted peer accepts it, the nearest first; says which")
	cmd.Flags().BoolVarP(&f.detach, "detach", "d", false, "queue it, print its job's ID and return: see peerctl job")
	cmd.Flags().StringVar(&f.receipt, "receipt", "", "write the signed receipt to `FILE`")
	return cmd
}

// jobModule is the spec and the open module of a job.
func (a *app) jobModule(f *workFlags, path string, args []string) (mesh.Spec, *module, error) {
	spec, err := a.spec(f, args)
	if err != nil {
		return spec, nil, err
	}
	mod, err := openModule(path)
	if err != nil {
		return spec, nil, err
	}
	asModule(&spec, mod, mesh.Job)
	if err = sign(&spec, f.signed); err == nil {
		err = check(spec)
	}
	if err != nil {
		mod.Close()
		return spec, nil, err
	}
	return spec, mod, nil
}

func (a *app) runJob(ctx context.Context, f *runFlags, path string, args []string) error {
	spec, mod, err := a.jobModule(&f.workFlags, path, args)
	if err != nil {
		return err
	}
	defer mod.Close()
	return a.withClient(func(c *control.Client) error {
		if err := mod.upload(ctx, c, a.progress()); err != nil {
			return err
		}
		order := control.Run{Peer: f.peer, Any: f.any, Spec: spec, Whole: isFile(a.in)}
		end, err := c.Run(ctx, order, control.JobStreams{
			Stdin: a.in, Stdout: a.terminalOutput(a.out), Stderr: a.terminalOutput(a.err),
			Begun: func(s control.Started) {
				if f.any {
					a.note("runs on %s", s.Peer)
				}
			},
		})
		if err != nil {
			return err
		}
		if err := writeReceipt(f.receipt, end.Receipt); err != nil {
			return err
		}
		return a.ended(spec.Name, end)
	})
}

// isFile reports whether all of an input is there already.
func isFile(in io.Reader) bool {
	f, ok := in.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode().IsRegular()
}

// ended says how a job ended, if it did not end by itself, and passes its status on.
func (a *app) ended(name string, end control.RunResult) error {
	if end.Kind != mesh.Internal {
		p := problem{Kind: end.Kind.String(), Message: name + ": " + end.Reason, Hint: hintFor(end)}
		if end.Trace != "" {
			p.Log = strings.Split(strings.TrimRight(end.Trace, "\n"), "\n")
		}
		if end.Peer != self {
			p.At = end.Peer
		}
		a.reportEnd(p)
	}
	if status := statusOf(end.Exit); status != exitOK {
		return exitStatus(status)
	}
	return nil
}

// hintFor is what could be done so that a job would not be ended next time.
func hintFor(end control.RunResult) string {
	switch end.Kind {
	case mesh.OutOfFuel:
		return "give it more fuel with --fuel, within what the peer grants"
	case mesh.OutOfMemory:
		return "give it more memory with --memory, within what the peer grants"
	case mesh.Timeout:
		return "give it more time with --timeout"
	}
	return ""
}

// statusOf is the exit status that stands for how a job ended: its own, or for one
// that was ended from outside what a shell would show for the same end.
func statusOf(x mesh.Exit) int {
	switch x.Kind {
	case mesh.Timeout:
		return 124 // as timeout(1) says it
	case mesh.Canceled:
		return exitInterrupted
	case mesh.OutOfMemory:
		return 137 // 128 + SIGKILL
	case mesh.Trap:
		return 134 // 128 + SIGABRT
	case mesh.OutOfFuel:
		return 152 // 128 + SIGXCPU
	}
	switch {
	case x.Code == 0 && x.Kind == mesh.Internal: // it ended by itself, and well
		return exitOK
	case x.Code&0xff == 0:
		return exitFailure // the system keeps eight bits, and these would say success
	}
	return x.Code & 0xff
}
