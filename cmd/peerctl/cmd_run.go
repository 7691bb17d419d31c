package main

import (
	"context"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

func cmdRun(a *app) *cobra.Command {
	var f workFlags
	cmd := &cobra.Command{
		Use:   "run FILE.wasm [ARGS…]",
		Short: "Run a WASM program to its end, as if it were here",
		Long: `Runs a WASI program on a peer or here: stdin goes in, stdout and stderr come out,
and its exit status becomes that of peerctl. The status is 125 if the program
could not be run, 124 if it ran out of time and 137 if it ran out of memory.
Arguments of the program that begin with - go after --.`,
		Example: `  peerctl run count.wasm < words.txt
  peerctl run --peer bob --memory 1G render.wasm -- --frame 7 > frame.png`,
		Args:              programArgs("a FILE.wasm", true),
		ValidArgsFunction: completeModules,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runJob(cmd.Context(), &f, args[0], args[1:])
		},
	}
	a.addWorkFlags(cmd, &f)
	return cmd
}

func (a *app) runJob(ctx context.Context, f *workFlags, path string, args []string) error {
	spec, err := a.spec(f, args)
	if err != nil {
		return err
	}
	mod, err := openModule(path)
	if err != nil {
		return err
	}
	defer mod.Close()
	asModule(&spec, mod, mesh.Job)
	if err := check(spec); err != nil {
		return err
	}
	return a.withClient(func(c *control.Client) error {
		if err := mod.upload(ctx, c, a.progress()); err != nil {
			return err
		}
		exit, err := c.Run(ctx, control.Run{Peer: f.peer, Spec: spec}, a.in, a.terminalOutput(a.out), a.terminalOutput(a.err))
		if err != nil {
			return err
		}
		if exit.Kind != mesh.Internal && exit.Reason != "" {
			a.note("%s: %s", spec.Name, exit.Reason)
		}
		if status := statusOf(exit); status != exitOK {
			return exitStatus(status)
		}
		return nil
	})
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
