package driver

import (
	"context"
	"io"
)

// Execer is implemented by tasks inside which further programs can be run.
type Execer interface {
	// Exec runs a program with the workload's own rights, and no more, and returns its
	// exit status. When ctx ends first the program is killed, with all that it started
	// in its session, before Exec returns. An error means that the program did not run
	// to its end.
	Exec(ctx context.Context, e Exec) (status int, err error)
}

// Exec is a program that is run beside a workload's own.
type Exec struct {
	Argv []string // the program, found as the workload finds it, and its arguments
	TTY  bool     // it has a terminal, and all that it writes comes to Stdout
	// Stdin is read by Exec alone, at its own pace, and may still be read when Exec
	// returns; a Read that waits then must be ended by who called. nil = no input.
	Stdin io.Reader
	// Stdout and Stderr may block, which holds up the program. Writes must end with ctx.
	Stdout, Stderr io.Writer
	Size           <-chan WindowSize // of the terminal; may be nil
}

// WindowSize is the size of a terminal in characters.
type WindowSize struct{ Columns, Rows uint16 }
