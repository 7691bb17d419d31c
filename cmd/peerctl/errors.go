package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

// The exit statuses.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitNotRun      = 125 // of run and exec: it was not run; any other status is the job's own
	exitInterrupted = 130
)

// usageError is a mistake in the command line.
type usageError struct{ cause *mesh.Error }

func (e usageError) Error() string { return e.cause.Error() }
func (e usageError) Unwrap() error { return e.cause }

func usagef(format string, args ...any) usageError {
	return usageError{mesh.Errorf(mesh.Invalid, format, args...)}
}

func (e usageError) hint(format string, args ...any) usageError {
	return usageError{e.cause.WithHint(format, args...)}
}

// exitStatus ends the program with a job's status; nothing is left to say.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// deployError is a deploy that failed after the peer had accepted it.
type deployError struct {
	error
	workload *control.Workload
	log      []string
}

func (e *deployError) Unwrap() error { return e.error }

// problem is one error as it is shown, and what -o json prints of it.
type problem struct {
	Kind     string            `json:"kind"`
	Rule     string            `json:"rule,omitempty"`
	Message  string            `json:"message"`
	Hint     string            `json:"hint,omitempty"`
	Peer     string            `json:"peer,omitempty"`
	Log      []string          `json:"log,omitempty"`
	Workload *control.Workload `json:"workload,omitempty"`
	At       string            `json:"at,omitempty"` // the peer where a job ended
}

// fail reports err and returns the exit status that goes with it.
func (a *app) fail(ctx context.Context, cmd *cobra.Command, err error) int {
	var status exitStatus
	if errors.As(err, &status) {
		return int(status)
	}
	if ctx.Err() != nil {
		err = mesh.Errorf(mesh.Canceled, "interrupted").WithHint("%s", mesh.AsError(err).Hint)
		if mesh.AsError(err).Hint == "" && !a.json() {
			return exitInterrupted // whoever pressed Ctrl-C knows it
		}
	}
	for _, one := range split(err) {
		a.report(describe(one))
	}
	var usage usageError
	switch {
	case ctx.Err() != nil:
		return exitInterrupted
	case cmd.Name() == "run" || cmd.Name() == "exec":
		return exitNotRun
	case errors.As(err, &usage):
		return exitUsage
	}
	return exitFailure
}

// split takes apart what errors.Join put together.
func split(err error) []error {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		return many.Unwrap()
	}
	return []error{err}
}

func describe(err error) problem {
	p := problem{Kind: mesh.KindOf(err).String(), Message: err.Error()}
	var known *mesh.Error
	if errors.As(err, &known) {
		p.Rule, p.Message, p.Hint = known.Rule, known.Msg, known.Hint
		if known.Err != nil {
			p.Message += ": " + root(known.Err).Error()
		}
	}
	var remote *control.RemoteError
	if errors.As(err, &remote) {
		p.Peer = remote.Peer
	}
	var deploy *deployError
	if errors.As(err, &deploy) {
		p.Log, p.Workload = deploy.log, deploy.workload
	}
	return p
}

// root is the innermost cause. What wraps it says "dial unix …: connect: …", which
// the message already says in plain words.
func root(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

// report prints a problem: one line that says what was wrong and by whose rule,
// the log that shows why, and what to do next. As JSON it is one line too.
func (a *app) report(p problem) {
	if a.json() {
		enc := json.NewEncoder(a.err)
		enc.SetEscapeHTML(false)
		_ = enc.Encode(map[string]problem{"error": p})
		return
	}
	ink := a.ink(a.err)
	fmt.Fprintf(a.err, "%s %s\n", ink.red("error:"), clean(p.line()))
	for _, l := range p.Log {
		fmt.Fprintf(a.err, "  | %s\n", clean(l))
	}
	if p.Hint != "" {
		fmt.Fprintf(a.err, "%s %s\n", ink.bold("next:"), clean(p.Hint))
	}
}

// refusals are the kinds that another peer decides; what else goes wrong there is
// only reported by it.
func refusals() []mesh.Kind {
	return []mesh.Kind{
		mesh.Invalid, mesh.Conflict, mesh.Untrusted, mesh.Denied, mesh.Quota, mesh.Stale, mesh.Replayed,
		mesh.Forged, mesh.Misdirected, mesh.TooLarge, mesh.Overloaded,
	}
}

// reportEnd prints why a job did not end by itself: its name begins the line, since
// it is no error of peerctl's.
func (a *app) reportEnd(p problem) {
	if a.json() {
		a.report(p)
		return
	}
	fmt.Fprintln(a.err, clean(p.Message))
	for _, l := range p.Log {
		fmt.Fprintf(a.err, "  | %s\n", clean(strings.TrimSpace(l)))
	}
	if p.Hint != "" {
		fmt.Fprintf(a.err, "%s %s\n", a.ink(a.err).bold("next:"), clean(p.Hint))
	}
}

func (p problem) line() string {
	line := p.Message
	if p.Peer != "" && !strings.HasPrefix(line, p.Peer+" ") && !strings.HasPrefix(line, p.Peer+":") {
		verb := ""
		if slices.ContainsFunc(refusals(), func(k mesh.Kind) bool { return k.String() == p.Kind }) {
			verb = " refused"
		}
		line = p.Peer + verb + ": " + line
	}
	if p.Rule != "" {
		line += " [" + p.Rule + "]"
	}
	return line
}

// note says something to the person that is not data. Programs that asked for
// JSON are not told.
func (a *app) note(format string, args ...any) {
	if !a.json() {
		fmt.Fprintln(a.err, clean(fmt.Sprintf(format, args...)))
	}
}
