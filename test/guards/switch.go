package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// switchEnv names the guard that is away, by its number.
const switchEnv = "PEERCOMPUTE_GUARD_AWAY"

// switches is a tree in which guards can be taken away while it runs: each function
// that has one in it begins by asking whether it is away, and hands over to a copy of
// itself without it.
type switches struct {
	files map[string]string // by path; those that differ
	has   []bool            // whether guard i can be taken away so
}

func withSwitches(guards []guard) (switches, error) {
	s := switches{files: map[string]string{}, has: make([]bool, len(guards))}
	sources := map[string]*source{}
	for i, g := range guards {
		changed, err := g.without()
		if err != nil {
			return s, fmt.Errorf("%s: %w", g.title, err)
		}
		added := map[*source][]handover{}
		for path, text := range changed {
			if sources[path] == nil {
				data, err := os.ReadFile(path)
				if err == nil {
					sources[path], err = parseSource(path, string(data))
				}
				if err != nil {
					return s, err
				}
			}
			without, err := parseSource(path, text)
			if err != nil {
				return s, fmt.Errorf("%s: %w", g.title, err)
			}
			h, ok := sources[path].handovers(without, g.title, i)
			if !ok {
				added = nil
				break
			}
			added[sources[path]] = h
		}
		for src, h := range added {
			s.has[i] = true
			src.added = append(src.added, h...)
		}
	}
	for path, src := range sources {
		if len(src.added) == 0 {
			continue
		}
		s.files[path] = src.withHandovers()
		s.files[filepath.Join(filepath.Dir(path), "guards_switch.go")] = fmt.Sprintf(
			"package %s\n\nimport \"os\"\n\nvar guardAway = os.Getenv(%q)\n", src.pkg, switchEnv)
	}
	return s, nil
}

// source is a file, and its functions in order.
type source struct {
	pkg, text string
	outside   string // all but its functions
	funcs     []function
	added     []handover
}

type function struct {
	*ast.FuncDecl
	text string
	at   int // where text begins in the file
}

// offset is where in the function's text a position is.
func (f function) offset(p token.Pos) int { return int(p - f.Pos()) }

// handover is a copy of a function for when a guard is away.
type handover struct {
	index int // of the function
	away  int // the guard
	title string
	copy  string
}

func parseSource(path, text string) (*source, error) {
	fset := token.NewFileSet()
	parsed, err := parser.ParseFile(fset, path, text, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	s := &source{pkg: parsed.Name.Name, text: text}
	end := 0
	for _, d := range parsed.Decls {
		if f, ok := d.(*ast.FuncDecl); ok {
			from, to := fset.Position(f.Pos()).Offset, fset.Position(f.End()).Offset
			s.funcs = append(s.funcs, function{f, text[from:to], from})
			s.outside += text[end:from]
			end = to
		}
	}
	s.outside += text[end:]
	return s, nil
}

// handovers are the functions that differ in without; not ok where anything else does.
func (s *source) handovers(without *source, title string, away int) (out []handover, ok bool) {
	if s.outside != without.outside || len(s.funcs) != len(without.funcs) {
		return nil, false
	}
	for i, f := range s.funcs {
		w := without.funcs[i]
		if f.text == w.text {
			continue
		}
		if f.Body == nil || w.Body == nil || f.Name.Name == "init" ||
			f.text[:f.offset(f.Body.Lbrace)] != w.text[:w.offset(w.Body.Lbrace)] {
			return nil, false
		}
		name := w.offset(w.Name.Pos())
		out = append(out, handover{i, away, title, w.text[:name] + f.without(away) + w.text[name+len(w.Name.Name):]})
	}
	return out, len(out) > 0
}

// without is the name of the copy.
func (f function) without(away int) string { return fmt.Sprintf("without%d_%s", away, f.Name.Name) }

// withHandovers is the file with them.
func (s *source) withHandovers() string {
	of := map[int][]int{}
	copies := ""
	for _, h := range s.added {
		of[h.index] = append(of[h.index], h.away)
		copies += fmt.Sprintf("\n\n//line %s:1\n%s", h.title, h.copy) // by which the compiler calls it
	}
	text := s.text
	for _, i := range slices.Backward(slices.Sorted(maps.Keys(of))) {
		f := s.funcs[i]
		text = text[:f.at] + f.asking(of[i]) + text[f.at+len(f.text):]
	}
	return text + copies + "\n"
}

// asking is the function, which hands over to its copy first if one of the guards is
// away. Its lines keep their numbers.
func (f function) asking(away []int) string {
	type change struct {
		at, drop int
		put      string
	}
	var named []change // parameters without a name get one
	var count int
	name := func(p *ast.Field) (names []string) {
		fresh := func(at, drop int, after string) {
			count++
			names = append(names, fmt.Sprintf("given%d_", count))
			named = append(named, change{at, drop, names[len(names)-1] + after})
		}
		if len(p.Names) == 0 {
			fresh(f.offset(p.Type.Pos()), 0, " ")
		}
		for _, n := range p.Names {
			if n.Name == "_" {
				fresh(f.offset(n.Pos()), 1, "")
			} else {
				names = append(names, n.Name)
			}
		}
		return names
	}
	receiver := ""
	if f.Recv != nil {
		receiver = name(f.Recv.List[0])[0] + "."
	}
	var args []string
	for _, p := range f.Type.Params.List {
		args = append(args, name(p)...)
		if _, ok := p.Type.(*ast.Ellipsis); ok {
			args[len(args)-1] += "..."
		}
	}
	types := ""
	if f.Type.TypeParams != nil {
		var all []string
		for _, p := range f.Type.TypeParams.List {
			for _, n := range p.Names {
				all = append(all, n.Name)
			}
		}
		types = "[" + strings.Join(all, ", ") + "]"
	}
	ask := ""
	for _, i := range away {
		call := fmt.Sprintf("%s%s%s(%s)", receiver, f.without(i), types, strings.Join(args, ", "))
		if f.Type.Results != nil {
			call = "return " + call
		} else {
			call += "; return"
		}
		ask += fmt.Sprintf("if guardAway == %s { %s }; ", strconv.Quote(strconv.Itoa(i)), call)
	}
	brace := f.offset(f.Body.Lbrace) + 1
	text := f.text[:brace] + ask + f.text[brace:]
	for _, c := range slices.Backward(named) {
		text = text[:c.at] + c.put + text[c.at+c.drop:]
	}
	return text
}
