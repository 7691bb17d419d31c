package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Result is what one run measured; it is the JSON file.
type Result struct {
	Machine   Machine   `json:"machine"`
	Started   time.Time `json:"started"`
	LoadAfter float64   `json:"load_after"` // load average of the last minute, at the end
	Quick     bool      `json:"quick"`
	Warnings  []string  `json:"warnings,omitempty"`
	Sections  []Section `json:"sections"`
}

// Section is one table.
type Section struct {
	Key     string   `json:"key"`
	Title   string   `json:"title"`
	Seconds float64  `json:"seconds"` // that measuring it took
	Skipped string   `json:"skipped,omitempty"`
	Failed  string   `json:"failed,omitempty"`
	Notes   []string `json:"notes,omitempty"`
	Rows    []Row    `json:"rows,omitempty"`
}

// Row is one thing measured of several subjects. The first one with a figure is
// what the others' ratios are of.
type Row struct {
	Name   string  `json:"name"`
	Unit   string  `json:"unit"`
	Cells  []Cell  `json:"cells"`
	Target *Target `json:"target,omitempty"`
	// Missing says why there are no figures.
	Missing string `json:"missing,omitempty"`
}

// Cell is one subject's figures, one sample a round.
type Cell struct {
	Who     string    `json:"who"`
	Median  float64   `json:"median"`
	Ratio   float64   `json:"ratio,omitempty"` // of the median of the row's first cell
	Min     float64   `json:"min"`
	Max     float64   `json:"max"`
	Samples []float64 `json:"samples"`
}

// Target is what a row should reach.
type Target struct {
	Text string `json:"text"`
	Met  bool   `json:"met"`
}

// series collects samples by subject, in the order in which subjects came.
type series struct {
	who     []string
	samples map[string][]float64
}

func (s *series) add(who string, v float64) {
	if s.samples == nil {
		s.samples = map[string][]float64{}
	}
	if _, ok := s.samples[who]; !ok {
		s.who = append(s.who, who)
	}
	s.samples[who] = append(s.samples[who], v)
}

// row makes a table row of the samples; order says which subjects come first.
func (s *series) row(name, unit string, order ...string) Row {
	r := Row{Name: name, Unit: unit}
	for _, who := range append(order, s.who...) {
		v := s.samples[who]
		if len(v) == 0 || slices.ContainsFunc(r.Cells, func(c Cell) bool { return c.Who == who }) {
			continue
		}
		c := Cell{Who: who, Median: median(v), Min: slices.Min(v), Max: slices.Max(v), Samples: v}
		if len(r.Cells) > 0 && r.Cells[0].Median > 0 {
			c.Ratio = c.Median / r.Cells[0].Median
		}
		r.Cells = append(r.Cells, c)
	}
	return r
}

// without is a row that could not be measured, and why.
func without(name string, err error) Row {
	why, _, _ := strings.Cut(err.Error(), "\n")
	return Row{Name: name, Missing: why}
}

func (r Row) cell(who string) Cell {
	for _, c := range r.Cells {
		if c.Who == who {
			return c
		}
	}
	return Cell{}
}

// want sets the row's target; f is given the cell that it is about.
func (r Row) want(who, text string, f func(Cell) bool) Row {
	if c := r.cell(who); len(c.Samples) > 0 {
		r.Target = &Target{Text: text, Met: f(c)}
	}
	return r
}

// wantBeside sets a target that is a share of what another subject reaches in the
// same run. Where that one was not measured, or has nothing to compare, there is
// no target.
func (r Row) wantBeside(who, other, text string, f func(share float64) bool) Row {
	c, o := r.cell(who), r.cell(other)
	if len(c.Samples) > 0 && o.Median > 0 {
		share := c.Median / o.Median
		r.Target = &Target{Text: fmt.Sprintf("%s of %s's, is %.2f", text, other, share), Met: f(share)}
	}
	return r
}

// median of v, which is not empty.
func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// percentile is the value below which the share p of the sorted v lies.
func percentile(v []time.Duration, p float64) time.Duration {
	if len(v) == 0 {
		return 0
	}
	return v[min(int(p*float64(len(v))), len(v)-1)]
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func (r Result) save(path string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, append(data, '\n'), 0o644))
}
