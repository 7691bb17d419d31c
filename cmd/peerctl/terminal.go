package main

import (
	"io"
	"os"
	"runtime"
	"strings"
	"unicode"

	"golang.org/x/term"
)

// isTerminal reports whether a person sees what is written to w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// ansi reports whether w understands control sequences.
func (a *app) ansi(w io.Writer) bool {
	if name, _ := a.env("TERM"); name == "dumb" {
		return false
	}
	if runtime.GOOS == "windows" {
		// The old console shows them as text; Windows Terminal sets this.
		if session, _ := a.env("WT_SESSION"); session == "" {
			return false
		}
	}
	return isTerminal(w)
}

// ink colours text, or leaves it as it is.
type ink bool

func (a *app) ink(w io.Writer) ink {
	plain, set := a.env("NO_COLOR")
	return ink((!set || plain == "") && a.ansi(w))
}

func (i ink) red(s string) string  { return i.wrap("\x1b[1;31m", s) }
func (i ink) bold(s string) string { return i.wrap("\x1b[1m", s) }

func (i ink) wrap(start, s string) string {
	if !i {
		return s
	}
	return start + s + "\x1b[0m"
}

// clean makes text that another machine chose safe for a terminal: one line,
// without control characters or a change of writing direction.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\r', r == '\t':
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r):
			return unicode.ReplacementChar
		}
		return r
	}, s)
}
