package main

import (
	"context"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"peercompute/pkg/control"
)

// execFlags are those of exec.
type execFlags struct {
	peer       string
	stdin, tty bool
}

func cmdExec(a *app) *cobra.Command {
	var f execFlags
	cmd := &cobra.Command{
		Use:   "exec WORKLOAD -- COMMAND [ARGS…]",
		Short: "Run a program inside a container",
		Long: `Runs a program inside a container that runs, with the rights of its own program and
no more. Its exit status becomes that of peerctl; the status is 125 if it could not
be run, or was cut off. With -i it gets the input, with -t a terminal. It is killed
when peerctl ends, when the workload stops, and when trust does.

A container on another peer must be yours, and that peer must have granted it:
peerctl peers allow YOU --allow deploy,exec. Each run is in its audit log, without
the arguments. A WASM guest has no processes, so nothing can be run in it.`,
		Example: `  peerctl exec web -- nginx -t
  peerctl exec -it db --peer bob -- sh
  peerctl exec -i db -- psql < dump.sql`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 && cmd.ArgsLenAtDash() > 1 {
				return usagef("%s takes one WORKLOAD before --", cmd.CommandPath()).hint("see: %s --help", cmd.CommandPath())
			}
			return takes("a WORKLOAD (its name or the start of its ID)", "a COMMAND…")(cmd, args)
		},
		ValidArgsFunction: a.completeWorkloads,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.exec(cmd.Context(), &f, args[0], args[1:])
		},
	}
	flags := cmd.Flags()
	flags.SetInterspersed(true)
	flags.BoolVarP(&f.stdin, "stdin", "i", false, "pass the input on to it")
	flags.BoolVarP(&f.tty, "tty", "t", false, "give it a terminal")
	a.peerFlag(cmd, &f.peer)
	return cmd
}

func (a *app) exec(ctx context.Context, f *execFlags, ref string, argv []string) error {
	in, isFile := a.in.(*os.File)
	if f.tty && (!isFile || !term.IsTerminal(int(in.Fd()))) {
		return usagef("-t needs a terminal, and the input is none").hint("leave -t out")
	}
	return a.withClient(func(c *control.Client) error {
		order := control.Exec{Argv: argv, TTY: f.tty, Stdin: f.stdin}
		streams := control.Streams{Stdin: a.in, Stdout: a.terminalOutput(a.out), Stderr: a.terminalOutput(a.err)}
		if f.tty {
			// A program that was given the terminal may use all of it.
			streams.Stdout, streams.Stderr = a.out, a.err
			before, err := term.MakeRaw(int(in.Fd()))
			if err != nil {
				return err
			}
			defer func() { _ = term.Restore(int(in.Fd()), before) }()
			watching, stop := context.WithCancel(ctx)
			defer stop()
			streams.Size = windowSizes(watching, int(in.Fd()))
		}
		status, err := c.Exec(ctx, ref, f.peer, order, streams)
		if err != nil {
			return err
		}
		if status != exitOK {
			return exitStatus(status & 0xff)
		}
		return nil
	})
}

// windowSizes tells the size of a terminal, and each change of it, until ctx ends.
func windowSizes(ctx context.Context, fd int) <-chan control.WindowSize {
	out := make(chan control.WindowSize)
	changed, stop := resized()
	go func() {
		defer close(out)
		defer stop()
		for {
			if w, h, err := term.GetSize(fd); err == nil {
				select {
				case out <- control.WindowSize{Columns: uint16(min(w, 0xffff)), Rows: uint16(min(h, 0xffff))}:
				case <-ctx.Done():
					return
				}
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}
