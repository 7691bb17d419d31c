package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
	"rsc.io/qr"
)

// quiet is the margin of a QR code, in modules. The standard wants four; readers
// do with two, and two fit a terminal of 80 columns.
const quiet = 2

// drawQR draws text as a QR code for a person to scan, two modules to a character.
// Where the terminal is too narrow it says so instead.
func (a *app) drawQR(w io.Writer, text string) error {
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		return usagef("the token is too long for a QR code: %s", err).hint("give it as text, without --qr")
	}
	if have, need := columns(w), code.Size+2*quiet; have > 0 && have < need {
		a.note("the QR code is %d columns wide and this terminal only %d: widen it, or give the token as text", need, have)
		return nil
	}
	_, err = io.WriteString(w, renderQR(code.Size, code.Black, bool(a.ink(w))))
	return err
}

// columns is the width of a terminal; 0 if w is none.
func columns(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	n, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return n
}

// renderQR draws a square of modules in half blocks. With colours it is black on
// white on any terminal; without, the glyphs are the light modules, which is right
// on a dark background, and readers know the other too.
func renderQR(size int, black func(x, y int) bool, colour bool) string {
	dark := func(x, y int) bool { return x >= 0 && y >= 0 && x < size && y < size && black(x, y) }
	glyphs := [...]string{" ", "▄", "▀", "█"} // nothing, lower half, upper half, both
	var b strings.Builder
	for y := -quiet; y < size+quiet; y += 2 {
		if colour {
			b.WriteString("\x1b[30;107m")
		}
		for x := -quiet; x < size+quiet; x++ {
			upper, lower := dark(x, y), dark(x, y+1) && y+1 < size+quiet
			if !colour {
				upper, lower = !upper, !lower && y+1 < size+quiet
			}
			n := 0
			if lower {
				n = 1
			}
			if upper {
				n += 2
			}
			b.WriteString(glyphs[n])
		}
		if colour {
			b.WriteString("\x1b[0m")
		}
		fmt.Fprintln(&b)
	}
	return b.String()
}
