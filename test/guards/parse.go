package main

import (
	"fmt"
	"slices"
	"strings"
)

// parse reads the table: a title after "== ", then lines of file, from and to (may
// be empty), once or more often, and one of test (package and regular expression).
func parse(text string) ([]guard, error) {
	var out []guard
	var g *guard
	for n, line := range strings.Split(text, "\n") {
		wrong := func(why string) error { return fmt.Errorf("%s:%d: %s: %q", table, n+1, why, line) }
		word, rest, _ := strings.Cut(line, " ")
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
			continue
		case word == "==":
			out = append(out, guard{title: rest})
			g = &out[len(out)-1]
			continue
		case g == nil:
			return nil, wrong("no title before it")
		}
		if word == "file" {
			g.edits = append(g.edits, edit{file: rest})
			continue
		}
		if len(g.edits) == 0 {
			return nil, wrong("no file before it")
		}
		e := &g.edits[len(g.edits)-1]
		switch word {
		case "from":
			e.from = rest
		case "to":
			e.to = rest
		case "test":
			var ok bool
			if g.pkg, g.test, ok = strings.Cut(rest, " "); !ok {
				return nil, wrong("want a package and a test")
			}
		default:
			return nil, wrong("want file, from, to or test")
		}
	}
	for _, g := range out {
		if len(g.edits) == 0 || g.test == "" || slices.ContainsFunc(g.edits, func(e edit) bool { return e.from == "" || e.from == e.to }) {
			return nil, fmt.Errorf("%s: %q says no file, from or test, or changes nothing", table, g.title)
		}
	}
	return out, nil
}
