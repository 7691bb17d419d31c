package main

import (
	"bytes"
	"io"
)

// filter passes on the output of a workload to a terminal: text and colours, but
// no other control sequence. Without it a workload that somebody else deployed
// could set the title, write the clipboard or hide lines of whoever reads its log.
type filter struct {
	w      io.Writer
	state  filterState
	csi    []byte // the parameters of an unfinished "ESC [" sequence
	colour bool   // whether that sequence can still be a colour
	out    bytes.Buffer
}

type filterState int

const (
	inText   filterState = iota
	inEscape             // after ESC
	inCSI                // after ESC [
	inString             // after ESC ] and the like, until BEL or ESC \
	inStringEscape
	inC2 // after 0xC2, which begins the UTF-8 form of an 8-bit control
)

const (
	esc = 0x1b
	bel = 0x07
	// maxCSI bounds a colour sequence; longer ones are dropped.
	maxCSI = 32
)

// terminalOutput is a.out, filtered if a person sees it.
func (a *app) terminalOutput(w io.Writer) io.Writer {
	if isTerminal(w) {
		return &filter{w: w}
	}
	return w
}

func (f *filter) Write(p []byte) (int, error) {
	f.out.Reset()
	for _, c := range p {
		f.step(c)
	}
	if _, err := f.w.Write(f.out.Bytes()); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (f *filter) step(c byte) {
	switch f.state {
	case inText:
		f.text(c)
	case inC2:
		// A 0xC2 that no character follows is dropped: kept, it could form a control
		// with what follows once the bytes between are gone.
		f.state = inText
		switch {
		case c >= 0xa0 && c <= 0xbf:
			f.out.Write([]byte{0xc2, c})
		case c < 0x80 || c > 0x9f:
			f.text(c)
		}
	case inEscape:
		f.escape(c)
	case inCSI:
		f.sequence(c)
	case inString:
		switch c {
		case bel:
			f.state = inText
		case esc:
			f.state = inStringEscape
		}
	case inStringEscape:
		f.state = inString
		if c == '\\' {
			f.state = inText
		}
	}
}

func (f *filter) text(c byte) {
	switch {
	case c == esc:
		f.state = inEscape
	case c == 0xc2:
		f.state = inC2
	case c == '\n', c == '\r', c == '\t', c >= 0x20 && c != 0x7f:
		f.out.WriteByte(c)
	}
}

func (f *filter) escape(c byte) {
	switch c {
	case '[':
		f.state, f.csi, f.colour = inCSI, f.csi[:0], true
	case ']', 'P', 'X', '^', '_':
		f.state = inString
	case esc:
	default:
		f.state = inText
	}
}

func (f *filter) sequence(c byte) {
	switch {
	case c >= '0' && c <= '9', c == ';', c == ':':
		f.csi = append(f.csi, c)
		if len(f.csi) > maxCSI {
			f.csi, f.colour = f.csi[:0], false
		}
	case c >= 0x20 && c < 0x40: // private parameters: some other mode
		f.colour = false
	case c >= 0x40 && c <= 0x7e: // the final byte
		f.state = inText
		if c == 'm' && f.colour {
			f.out.WriteString("\x1b[")
			f.out.Write(f.csi)
			f.out.WriteByte(c)
		}
	case c == esc:
		f.state = inEscape
	default:
		f.state = inText
		f.text(c)
	}
}
