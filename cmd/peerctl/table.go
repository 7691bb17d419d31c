package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"peercompute/pkg/mesh"
)

// self is what the node calls itself where the name of a peer is expected.
const self = "self"

// none stands for an empty cell.
const none = "-"

// gap is how many spaces stand between two columns.
const gap = 3

// table prints aligned columns under a header.
type table struct{ w *tabwriter.Writer }

func newTable(out io.Writer, header ...string) *table {
	t := &table{tabwriter.NewWriter(out, 0, 0, gap, ' ', 0)}
	if len(header) > 0 {
		t.row(header...)
	}
	return t
}

func (t *table) row(cells ...string) {
	for i, c := range cells {
		cells[i] = clean(c)
		if c == "" {
			cells[i] = none
		}
	}
	fmt.Fprintln(t.w, strings.Join(cells, "\t"))
}

// below continues a cell, before which there are so many others, on a line of its own.
func (t *table) below(cells int, text string) {
	fmt.Fprintln(t.w, strings.Repeat("\t", cells)+clean(text))
}

func (t *table) flush() error { return t.w.Flush() }

// shortID is enough of a workload's ID to tell it from others.
func shortID(id mesh.WorkloadID) string { return string(id[:min(8, len(id))]) }

// shortPeer is a prefix of a peer's ID. All Ed25519 IDs begin with the same eight
// characters, so it takes sixteen to tell two apart; the result is still a valid
// reference.
func shortPeer(id mesh.PeerID) string {
	s := id.String()
	return s[:min(16, len(s))]
}

// age writes how long ago t was, in its largest unit.
func (a *app) age(t time.Time) string {
	if t.IsZero() {
		return none
	}
	return roughly(a.now().Sub(t))
}

func roughly(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}
