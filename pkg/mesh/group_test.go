package mesh

import (
	"strings"
	"testing"
)

func TestValidateGroup(t *testing.T) {
	base := Spec{
		Name: "web", Runtime: Container, Image: "a", Network: "front", Networks: []string{"back"}, Aliases: []string{"my_web", "w"},
		Entrypoint: []string{"/bin/sh", "-c"}, WorkDir: "/srv/app", Project: "shop",
	}
	if err := base.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*Spec)
		want   string
	}{
		"a name of the public's": {func(s *Spec) { s.Aliases = []string{"api.example.org"} }, "one label"},
		"localhost":              {func(s *Spec) { s.Aliases = []string{"localhost"} }, "one label"},
		"an address":             {func(s *Spec) { s.Aliases = []string{"db:192.0.2.7"} }, "one label"},
		"a long alias":           {func(s *Spec) { s.Aliases = []string{strings.Repeat("a", 64)} }, "one label"},
		"many aliases":           {func(s *Spec) { s.Aliases = make([]string, MaxAliases+1) }, "aliases"},
		"many networks":          {func(s *Spec) { s.Networks = make([]string, MaxNetworks) }, "networks"},
		"a bad network":          {func(s *Spec) { s.Networks = []string{"a,b"} }, "DNS label"},
		"twice":                  {func(s *Spec) { s.Networks = []string{"front"} }, "named twice"},
		"no first":               {func(s *Spec) { s.Network = "" }, "need a first"},
		"a bad project":          {func(s *Spec) { s.Project = "a b" }, "project"},
		"no program":             {func(s *Spec) { s.Entrypoint = []string{""} }, "no program"},
		"a relative directory":   {func(s *Spec) { s.WorkDir = "srv" }, "working directory"},
		"one that climbs":        {func(s *Spec) { s.WorkDir = "/srv/../etc" }, "working directory"},
		"one with a line's end":  {func(s *Spec) { s.WorkDir = "/srv\n" }, "working directory"},
		"a NUL":                  {func(s *Spec) { s.Entrypoint = []string{"a\x00"} }, "NUL"},
		"words without an end":   {func(s *Spec) { s.Entrypoint = make([]string, MaxArgs+1) }, "arguments"},
		"bytes without an end":   {func(s *Spec) { s.Entrypoint = []string{strings.Repeat("a", MaxStrings+1)} }, "bytes"},
		"of a guest":             {func(s *Spec) { s.Runtime, s.Shape, s.Network = Wasm, HTTP, "" }, "containers only"},
	} {
		t.Run(name, func(t *testing.T) {
			s := base
			c.change(&s)
			if err := s.Validate(); KindOf(err) != Invalid || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestMeets(t *testing.T) {
	web, db := Spec{Network: "front", Networks: []string{"back"}}, Spec{Network: "back"}
	if lone := (Spec{}); !web.Meets(db) || !db.Meets(web) || db.Meets(Spec{Network: "front"}) || lone.Meets(lone) || lone.Meets(db) {
		t.Error("who is in one network with whom is judged wrongly")
	}
}
