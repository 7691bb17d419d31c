package main

import (
	"context"
	"go/build"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

func testStdio() stdio {
	return stdio{in: strings.NewReader(""), out: io.Discard, err: io.Discard, env: func(string) (string, bool) { return "", false }}
}

// TestEveryCommandIsDocumented walks the tree that a person sees.
func TestEveryCommandIsDocumented(t *testing.T) {
	var visit func(c *cobra.Command)
	seen := 0
	visit = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			if sub.Name() == "help" {
				continue
			}
			seen++
			path := sub.CommandPath()
			if sub.Short == "" || strings.HasSuffix(sub.Short, ".") || len(sub.Short) > 70 {
				t.Errorf("%s: Short %q is not one short line without a full stop", path, sub.Short)
			}
			if !strings.Contains(sub.Example, path) {
				t.Errorf("%s: its Example does not show it", path)
			}
			if sub.Args == nil {
				t.Errorf("%s: does not say which arguments it takes", path)
			}
			visit(sub)
		}
	}
	a := &app{stdio: testStdio(), output: outputTable}
	visit(a.root())
	if seen < 18 {
		t.Errorf("only %d commands seen", seen)
	}
}

// TestExamplesParse keeps the examples true: each must pass the parser and fail,
// if at all, only because there is no node or no such file.
func TestExamplesParse(t *testing.T) {
	a := &app{stdio: testStdio(), output: outputTable, now: time.Now}
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		for line := range strings.SplitSeq(strings.ReplaceAll(c.Example, "\\\n", ""), "\n") {
			args := words(line)
			if len(args) == 0 || args[0] != "peerctl" {
				continue
			}
			cmd, rest, err := c.Root().Find(args[1:])
			if err != nil || cmd == c.Root() {
				t.Errorf("%s: example %q names no command: %v", c.Name(), line, err)
				continue
			}
			if err := cmd.ParseFlags(rest); err != nil {
				t.Errorf("example %q: %v", line, err)
			} else if err := cmd.ValidateArgs(cmd.Flags().Args()); err != nil {
				t.Errorf("example %q: %v", line, err)
			}
		}
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(a.root())
}

// words splits an example, leaving out comments and redirections.
func words(line string) []string {
	// What stands in double quotes is one word.
	var fields []string
	for i, part := range strings.Split(line, "\"") {
		if i%2 == 1 {
			fields = append(fields, part)
		} else {
			fields = append(fields, strings.Fields(part)...)
		}
	}
	if i := slices.IndexFunc(fields, func(f string) bool { return strings.ContainsAny(f[:1], "#<>") }); i >= 0 {
		fields = fields[:i]
	}
	return fields
}

// TestOneFilePerCommand keeps the promise of the package: the file of a command is
// found by its name.
func TestOneFilePerCommand(t *testing.T) {
	a := &app{stdio: testStdio(), output: outputTable}
	var visit func(c *cobra.Command, prefix string)
	visit = func(c *cobra.Command, prefix string) {
		for _, sub := range c.Commands() {
			if sub.Name() == "help" {
				continue
			}
			file := prefix + "_" + sub.Name()
			if _, err := os.Stat(file + ".go"); err != nil {
				t.Errorf("%s: %v", sub.CommandPath(), err)
			}
			visit(sub, file)
		}
	}
	visit(a.root(), "cmd")
}

// TestImports guards the law that the client holds no key and meets no network:
// only these packages of ours, and nothing but terminal libraries of others'.
func TestImports(t *testing.T) {
	allowed := []string{
		"peercompute/pkg/control", "peercompute/pkg/mesh",
		"github.com/spf13/cobra", "github.com/spf13/pflag", "golang.org/x/term", "rsc.io/qr",
	}
	pkg, err := build.ImportDir(".", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range pkg.Imports {
		if strings.Contains(path, ".") || strings.HasPrefix(path, "peercompute/") {
			if !slices.Contains(allowed, path) {
				t.Errorf("imports %s", path)
			}
		} else if path == "net" || path == "net/http" || path == "os/exec" || strings.HasPrefix(path, "crypto/") && path != "crypto/sha256" {
			t.Errorf("imports %s", path)
		}
	}
}

func TestHelpNeedsNoNode(t *testing.T) {
	for _, args := range [][]string{{}, {"--help"}, {"peers"}, {"deploy", "-h"}} {
		s := testStdio()
		var out strings.Builder
		s.out = &out
		if code := run(context.Background(), append(args, "--home", filepath.Join(t.TempDir(), "none")), s); code != exitOK {
			t.Errorf("%q: exit %d", args, code)
		}
		if !strings.Contains(out.String(), "Usage:") {
			t.Errorf("%q: no help on stdout", args)
		}
	}
}
