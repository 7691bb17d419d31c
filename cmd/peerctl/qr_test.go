package main

import (
	"strings"
	"testing"

	"rsc.io/qr"
)

// What is drawn, read back character by character, is the code, with its margin.
func TestRenderQR(t *testing.T) {
	code, err := qr.Encode("peerjoin1-"+strings.Repeat("x", 380), qr.L)
	if err != nil {
		t.Fatal(err)
	}
	if width := code.Size + 2*quiet; width > 80 {
		t.Errorf("a usual token takes %d columns", width)
	}
	for _, colour := range []bool{true, false} {
		lines := strings.Split(strings.TrimSuffix(renderQR(code.Size, code.Black, colour), "\n"), "\n")
		for row, line := range lines {
			line = strings.TrimSuffix(strings.TrimPrefix(line, "\x1b[30;107m"), "\x1b[0m")
			for col, glyph := range []rune(line) {
				for half := range 2 {
					x, y := col-quiet, 2*row+half-quiet
					if y >= code.Size+quiet {
						continue
					}
					set := glyph == '█' || half == 0 && glyph == '▀' || half == 1 && glyph == '▄'
					want := x >= 0 && y >= 0 && x < code.Size && y < code.Size && code.Black(x, y)
					if !colour {
						want = !want
					}
					if set != want {
						t.Fatalf("colour %t: module %d,%d is drawn as %q", colour, x, y, glyph)
					}
				}
			}
		}
	}
}

// The longest token that there is still makes a code.
func TestLongestTokenFitsAQRCode(t *testing.T) {
	if _, err := qr.Encode("peerjoin1-"+strings.Repeat("x", 2900), qr.L); err != nil {
		t.Errorf("2,900 characters: %v", err)
	}
	a := &app{stdio: testStdio(), output: outputTable}
	var out strings.Builder
	if err := a.drawQR(&out, strings.Repeat("x", 4096)); err == nil || out.Len() > 0 {
		t.Errorf("a text that does not fit is drawn: %v", err)
	}
}
