package main

import (
	"fmt"
	"io"
	"time"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

// progress tells a person what is being waited for: on a terminal in one line that
// is redrawn and vanishes, else in lines of plain text, and few of them.
type progress struct {
	w     io.Writer
	live  bool // w is a terminal
	quiet bool
	now   func() time.Time

	what  string    // the step that bytes reported last
	begun time.Time // when it was first reported
	shown time.Time // when it was last printed
	state mesh.State
	drawn bool // the current line is ours
}

// patience is how long a transfer goes on before anybody is told; redraw and
// repeat are how often they are told again.
const (
	patience = time.Second
	redraw   = 100 * time.Millisecond
	repeat   = 5 * time.Second
)

func (a *app) progress() *progress {
	return &progress{w: a.err, live: a.ansi(a.err), quiet: a.json(), now: a.now}
}

// bytes reports a transfer; total is 0 if it is not known.
func (p *progress) bytes(what string, done, total int64) {
	now := p.now()
	if what != p.what {
		p.what, p.begun, p.shown = what, now, time.Time{}
	}
	every := repeat
	if p.live {
		every = redraw
	}
	if now.Sub(p.begun) < patience || now.Sub(p.shown) < every {
		return
	}
	p.shown = now
	amount := ""
	switch {
	case total > 0:
		amount = fmt.Sprintf("  %3d%%  %s of %s", min(100, done*100/total), formatSize(done), formatSize(total))
	case done > 0:
		amount = "  " + formatSize(done)
	}
	p.line(what + amount)
}

// workload reports a change of state, once. Running is the end of the wait, which
// the caller reports.
func (p *progress) workload(w control.Workload) {
	if w.State == p.state || w.State == mesh.Running {
		return
	}
	p.state = w.State
	where := ""
	if w.Peer != "" && w.Peer != self {
		where = " on " + w.Peer
	}
	p.line(fmt.Sprintf("%s: %s%s", w.Name, w.State, where))
}

func (p *progress) line(text string) {
	switch {
	case p.quiet:
	case p.live:
		// No longer than a narrow terminal, so that it never wraps.
		fmt.Fprintf(p.w, "\r\x1b[K%s", cut(clean(text), 79))
		p.drawn = true
	default:
		fmt.Fprintln(p.w, clean(text))
	}
}

// clear takes the line away, before anything else is printed.
func (p *progress) clear() {
	if p.drawn {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.drawn = false
	}
}

func cut(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}
