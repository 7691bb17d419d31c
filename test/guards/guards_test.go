package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// The table stays true of the code: each guard is where it says, once, and its tests
// exist.
func TestGuardsAreThere(t *testing.T) {
	t.Chdir("../..")
	text, err := os.ReadFile(table)
	if err != nil {
		t.Fatal(err)
	}
	guards, err := parse(string(text))
	if err != nil {
		t.Fatal(err)
	}
	titles := map[string]bool{}
	for _, g := range guards {
		if titles[g.title] {
			t.Errorf("%s: twice", g.title)
		}
		titles[g.title] = true
		if _, err := g.without(); err != nil {
			t.Errorf("%s: %v", g.title, err)
		}
		for name := range strings.SplitSeq(strings.Trim(g.test, "^$"), "|") {
			name, _, _ = strings.Cut(strings.Trim(name, "^$()"), "/")
			if !hasTest(t, g.pkg, name) {
				t.Errorf("%s: there is no %s in %s", g.title, name, g.pkg)
			}
		}
	}
	if len(guards) < 30 {
		t.Errorf("only %d guards", len(guards))
	}
}

func hasTest(t *testing.T, pkg, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(pkg, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(data), "func "+name+"(") {
			return true
		}
	}
	return false
}

func TestParse(t *testing.T) {
	good := "# why\n\n== V9 a thing\nfile a.go\nfrom if bad {\nto if false {\ntest ./a TestA|TestB\n"
	got, err := parse(good)
	want := []guard{{"V9 a thing", []edit{{"a.go", "if bad {", "if false {"}}, "./a", "TestA|TestB"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	for _, bad := range []string{"file a.go\n", "== a\n", "== a\nfile a.go\nfrom x\nto x\ntest ./a TestA\n", "== a\nfile a.go\nfrom x\ntest TestA\n", "== a\nwhat x\n"} {
		if _, err := parse(bad); err == nil {
			t.Errorf("nothing is wrong with %q", bad)
		}
	}
}
