package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

func (r Result) print(w io.Writer) {
	m := r.Machine
	fmt.Fprintf(w, "Peer Compute, measured %s\n", r.Started.Format("2006-01-02 15:04 MST"))
	fmt.Fprintf(w, "%d cores (%s), %s, TCP %s, files on %s, Docker %s, %s; load %.2f at the start, %.2f at the end\n",
		m.Cores, m.CPU, known(m.Kernel), known(m.TCP), known(m.Files), known(m.Engine), m.Go, m.Load, r.LoadAfter)
	for _, t := range r.Warnings {
		fmt.Fprintln(w, "warning:", t)
	}
	for _, s := range r.Sections {
		s.print(w)
	}
}

func (s Section) print(w io.Writer) {
	fmt.Fprintf(w, "\n(%s) %s\n", s.Key, s.Title)
	if s.Skipped != "" {
		fmt.Fprintln(w, "    skipped:", s.Skipped)
	}
	if s.Failed != "" {
		fmt.Fprintln(w, "    failed:", s.Failed)
	}
	// Rows with the same subjects are one table.
	for i := 0; i < len(s.Rows); {
		j := i + 1
		for j < len(s.Rows) && s.Rows[j].heading() == s.Rows[i].heading() {
			j++
		}
		printRows(w, s.Rows[i:j])
		i = j
	}
	for _, n := range s.Notes {
		fmt.Fprintln(w, "    note:", n)
	}
}

// known is s, or says that there is nothing to say.
func known(s string) string {
	if s == "" {
		return "–"
	}
	return s
}

func (r Row) heading() string {
	var b strings.Builder
	for i, c := range r.Cells {
		b.WriteString("\t" + c.Who)
		if i > 0 {
			b.WriteString("\t×")
		}
	}
	return b.String()
}

func printRows(w io.Writer, rows []Row) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "    \t\t%s\t\n", strings.TrimPrefix(rows[0].heading(), "\t"))
	for _, r := range rows {
		fmt.Fprintf(t, "    %s\t%s", r.Name, r.Unit)
		for i, c := range r.Cells {
			fmt.Fprintf(t, "\t%s", figure(c.Median))
			if i > 0 {
				fmt.Fprintf(t, "\t%.3f", c.Ratio)
			}
		}
		if r.Missing != "" {
			fmt.Fprintf(t, "\tno figures: %s", r.Missing)
		}
		if r.Target != nil {
			word := "missed"
			if r.Target.Met {
				word = "ok"
			}
			fmt.Fprintf(t, "\t%s: %s", r.Target.Text, word)
		}
		fmt.Fprintln(t)
	}
	t.Flush()
}

// figure shows three digits that mean something.
func figure(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}
