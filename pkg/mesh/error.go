package mesh

import (
	"context"
	"errors"
	"fmt"
	"syscall"
)

// Kind classifies an Error. Numbers cross the wire: they are append-only.
type Kind uint16

// The kinds of error. The comment says what the caller should conclude.
const (
	Internal    Kind = 0  // our fault; details are in the log of the peer that failed
	Invalid     Kind = 1  // the input itself is wrong
	NotFound    Kind = 2  // no such thing, or not yours to see
	Conflict    Kind = 3  // something else already has that name or state
	Untrusted   Kind = 4  // the signer is not on the trust list
	Denied      Kind = 5  // trusted, but the grant does not allow it
	Quota       Kind = 6  // allowed, but a limit of the grant or host is used up
	Stale       Kind = 7  // the request's time is outside the accepted window
	Replayed    Kind = 8  // the nonce was used before
	Forged      Kind = 9  // the signature, signer or encoding does not hold
	Misdirected Kind = 10 // signed for another peer or another state file
	Unavailable Kind = 11 // a part that is needed does not answer now
	Unsupported Kind = 12 // this build, platform or engine cannot do it
	Timeout     Kind = 13 // a deadline passed
	Canceled    Kind = 14 // the caller gave up, or the peer was removed
	Interrupted Kind = 15 // recorded before a crash and never acted upon; ask again
	OutOfFuel   Kind = 16 // a guest used up its fuel
	OutOfMemory Kind = 17 // a workload hit its memory limit
	TooLarge    Kind = 18 // over a size cap
	Overloaded  Kind = 19 // a queue or table is full; try again later
	Trap        Kind = 20 // a guest trapped
)

var kindNames = [...]string{
	"internal", "invalid", "not-found", "conflict", "untrusted", "denied", "quota", "stale", "replayed", "forged",
	"misdirected", "unavailable", "unsupported", "timeout", "canceled", "interrupted", "out-of-fuel", "out-of-memory",
	"too-large", "overloaded", "trap",
}

// String is the stable name of the kind, as JSON output shows it.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind-%d", uint16(k))
}

// Error is the one error type that crosses the wire.
type Error struct {
	Kind Kind   // append-only numbers; crosses the wire
	Rule string // the rule that refused ("grant.memory"); crosses the wire; may be empty
	Msg  string // safe to show a peer; crosses the wire
	Hint string // what the local person can do next
	Err  error  // cause: logged here, never sent
}

// Errorf makes an Error; the message must be safe to show a peer.
func Errorf(k Kind, format string, args ...any) *Error {
	return &Error{Kind: k, Msg: fmt.Sprintf(format, args...)}
}

// WithHint sets what the local person can do next.
func (e *Error) WithHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// WithRule names the rule that refused.
func (e *Error) WithRule(rule string) *Error { e.Rule = rule; return e }

// Because records the cause, which stays on this machine.
func (e *Error) Because(err error) *Error { e.Err = err; return e }

// Error is the message with its local cause; for people at this machine.
func (e *Error) Error() string {
	if e.Err != nil {
		return e.Msg + ": " + e.Err.Error()
	}
	return e.Msg
}

func (e *Error) Unwrap() error { return e.Err }

// RuleDisk refuses what a full disk has no room for.
const RuleDisk = "host.disk"

// AsError finds the Error in err's chain. Any other error becomes Internal (or
// Timeout, Canceled for those of package context), with the cause kept local.
func AsError(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return &Error{Kind: Timeout, Msg: "timed out", Err: err}
	case errors.Is(err, context.Canceled):
		return &Error{Kind: Canceled, Msg: "canceled", Err: err}
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return &Error{Kind: Overloaded, Rule: RuleDisk, Msg: "this machine's disk is full", Hint: "its owner has to free some space; then try again", Err: err}
	}
	return &Error{Kind: Internal, Msg: "internal error", Err: err}
}

// None is the kind of no error; it never crosses the wire.
const None Kind = 0xffff

// KindOf is the kind of err; Internal for errors that are not ours, None for nil.
func KindOf(err error) Kind {
	if err == nil {
		return None
	}
	return AsError(err).Kind
}
