package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestMedianAndPercentile(t *testing.T) {
	if got := median([]float64{9, 1, 5}); got != 5 {
		t.Errorf("odd: got %v", got)
	}
	if got := median([]float64{9, 1, 5, 3}); got != 4 {
		t.Errorf("even: got %v", got)
	}
	var v []time.Duration
	for i := range 100 {
		v = append(v, time.Duration(i))
	}
	if a, b, c := percentile(v, 0.5), percentile(v, 0.99), percentile(v, 1); a != 50 || b != 99 || c != 99 {
		t.Errorf("got %d, %d, %d", a, b, c)
	}
}

func TestRowComparesWithItsFirstCell(t *testing.T) {
	var s series
	for _, v := range []float64{4, 2, 3} {
		s.add("ours", v)
		s.add("theirs", 2*v)
	}
	r := s.row("load", "req/s", "theirs", "nobody")
	if len(r.Cells) != 2 || r.Cells[0].Who != "theirs" || r.Cells[1].Ratio != 0.5 || r.Cells[1].Min != 2 || r.Cells[1].Max != 4 {
		t.Fatalf("got %+v", r)
	}
	missed := r.want("ours", "≥ 0.6", func(c Cell) bool { return c.Ratio >= 0.6 })
	if missed.Target == nil || missed.Target.Met {
		t.Errorf("got %+v", missed.Target)
	}
	if none := r.want("nobody", "", func(Cell) bool { return true }); none.Target != nil {
		t.Error("a target for somebody who was not measured")
	}
}

func TestTargetBesideAnother(t *testing.T) {
	var s series
	s.add("direct", 1)
	s.add("gateway", 5)
	s.add("nginx", 2)
	r := s.row("latency", "ms")
	for most, met := range map[float64]bool{2.4: false, 2.6: true} {
		got := r.wantBeside("gateway", "nginx", "≤ some", func(share float64) bool { return share <= most }).Target
		if got == nil || got.Met != met || got.Text != "≤ some of nginx's, is 2.50" {
			t.Errorf("at most %v: got %+v", most, got)
		}
	}
	for _, pair := range [][2]string{{"gateway", "nobody"}, {"nobody", "nginx"}} {
		if got := r.wantBeside(pair[0], pair[1], "", func(float64) bool { return true }); got.Target != nil {
			t.Errorf("%v: a target for what was not measured: %+v", pair, got.Target)
		}
	}
}

func TestResultIsSavedAndPrinted(t *testing.T) {
	var s series
	s.add("direct", 100)
	s.add("gateway", 25)
	r := Result{Warnings: []string{"busy"}, Sections: []Section{
		{Key: "a", Title: "Tunnel", Rows: []Row{s.row("64 × 100 B", "req/s").want("gateway", "≥ 0.15", func(c Cell) bool { return c.Ratio >= 0.15 })}},
		{Key: "b", Title: "Deploy", Skipped: "no engine"},
		{Key: "d", Title: "Admission", Failed: "disk full"},
	}}
	var out strings.Builder
	r.print(&out)
	for _, want := range []string{"warning: busy", "(a) Tunnel", "0.250", "≥ 0.15: ok", "skipped: no engine", "failed: disk full"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, out.String())
		}
	}
	file := filepath.Join(t.TempDir(), "new", "bench.json")
	if err := r.save(file); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var again Result
	if err := json.Unmarshal(data, &again); err != nil || again.Sections[0].Rows[0].Cells[1].Median != 25 {
		t.Errorf("got %+v, %v", again, err)
	}
}

func TestParseStat(t *testing.T) {
	group, used, err := parseStat("42 (a) b (c)) S 1 77 77 0 -1 4194304 1 0 0 0 150 50 9 9 20 0 1 0 0\n")
	if err != nil || group != 77 || used != 2*time.Second {
		t.Errorf("got %d, %s, %v", group, used, err)
	}
	if _, _, err := parseStat("42 (short) S 1 77"); err == nil {
		t.Error("a line that is cut short is taken")
	}
}

func TestChooseSections(t *testing.T) {
	if all, err := choose(""); err != nil || len(all) != len(sections()) {
		t.Errorf("got %d, %v", len(all), err)
	}
	if two, err := choose("b,a"); err != nil || len(two) != 2 {
		t.Errorf("got %d, %v", len(two), err)
	}
	if _, err := choose("a,z"); err == nil {
		t.Error("a section that there is not")
	}
}
