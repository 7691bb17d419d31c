package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const lookedAfter = `package p

const limit = 10

type Door struct{ open bool }

func Small(n int) bool { return n < limit }

func (*Door) Welcome(_ string, _ int, names ...string) (ok bool) {
	if len(names) > 2 {
		return false
	}
	return true
}

func (d *Door) Enter(name string, _ ...int) {
	// Nobody without a name.
	if name == "" || len(name) > 5 {
		return
	}
	d.open = true
}

func Nobody(string, ...int) bool { return limit < 0 }

func First[T, U any](all []T, _ U) (none T, ok bool) {
	if len(all) == 0 {
		return none, false
	}
	return all[0], true
}

func Unwatched(n int) bool { return n > 0 }
`

const looksAfter = `package p

import "testing"

func TestSmall(t *testing.T) {
	if Small(20) {
		t.Error("20 is small")
	}
}

func TestDoor(t *testing.T) {
	d := &Door{}
	if _, ok := First([]int(nil), ""); ok {
		t.Error("the first of none")
	}
	if Nobody("", 1, 2) {
		t.Error("there is somebody")
	}
	if d.Welcome("", 1, "a", "b", "c") || !d.Welcome("", 1, "a") {
		t.Error("three are welcome, or one is not")
	}
	if d.Enter("", 1, 2); d.open {
		t.Error("one without a name is in")
	}
	if d.Enter("too long"); d.open {
		t.Error("one with a long name is in")
	}
	if d.Enter("ann"); !d.open {
		t.Error("ann is not in")
	}
}

func TestUnwatched(t *testing.T) { Unwatched(1) }
`

const watched = `== where it is judged
file p/p.go
from func Small(n int) bool { return n < limit }
to func Small(n int) bool { return n < 1000 }
test ./p TestSmall

== few are welcome
file p/p.go
from if len(names) > 2 {
to if false {
test ./p TestDoor

== a name is not empty
file p/p.go
from if name == "" || len(name) > 5 {
to if len(name) > 5 {
test ./p TestDoor

== a name is not long
file p/p.go
from if name == "" || len(name) > 5 {
to if name == "" {
test ./p TestDoor

== nobody is there
file p/p.go
from return limit < 0
to return limit > 0
test ./p TestDoor

== none has no first
file p/p.go
from return none, false
to return none, true
test ./p TestDoor

== what it is judged by
file p/p.go
from const limit = 10
to const limit = 1000
test ./p TestSmall
`

const unwatched = `
== nobody looks
file p/p.go
from return n > 0
to return true
test ./p TestUnwatched
`

// watch is what is said of a module with these guards.
func watch(t *testing.T, table, code, test string) (string, error) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module example.org/p\n\ngo 1.26\n", "p/p.go": code, "p/p_test.go": test, "test/guards/guards.txt": table,
	} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	var out strings.Builder
	err := run(t.Context(), &out, "")
	return out.String(), err
}

func TestEachGuardIsTakenAway(t *testing.T) {
	said, err := watch(t, watched, lookedAfter, looksAfter)
	if err != nil || strings.Count(said, "s  red\n") != 6 || strings.Count(said, "s  red, in a build of its own\n") != 1 {
		t.Errorf("want six red by a switch and one by its own build: %v\n%s", err, said)
	}
}

func TestWhatNobodyNoticesIsSaid(t *testing.T) {
	said, err := watch(t, watched+unwatched, lookedAfter, looksAfter)
	if err == nil || !strings.Contains(err.Error(), "1 of 8 guards") || !strings.Contains(err.Error(), "nobody looks: TestUnwatched passes without it") {
		t.Errorf("got %v\n%s", err, said)
	}
}

// A test that is red anyway would notice anything.
func TestWhatIsRedAnywayDoesNotCount(t *testing.T) {
	said, err := watch(t, watched, lookedAfter, strings.Replace(looksAfter, "Small(20)", "!Small(20)", 1))
	if err == nil || !strings.Contains(err.Error(), "7 of 7 guards") || !strings.Contains(said, "with every guard in place") {
		t.Errorf("got %v\n%s", err, said)
	}
}

func TestWhatDoesNotBuildIsNamed(t *testing.T) {
	said, err := watch(t, strings.Replace(watched, "to if false {", "to if nonsense {", 1), lookedAfter, looksAfter)
	if err == nil || !strings.Contains(err.Error(), "1 of 7 guards") || !strings.Contains(err.Error(), "few are welcome: it does not build") {
		t.Errorf("got %v\n%s", err, said)
	}
}
