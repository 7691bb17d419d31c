package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"peercompute/test/internal/testmesh"
)

// The tutorial's lines, as the README shows them and as the script runs them:
// "bob$ peerctl …".
var prompt = regexp.MustCompile(`(?m)^(alice|bob)\$ +(peerctl .*?)(?: +#.*)?$`)

func tutorial(t *testing.T, text string) (lines []string) {
	t.Helper()
	for _, m := range prompt.FindAllStringSubmatch(text, -1) {
		lines = append(lines, m[1]+"$ "+m[2])
	}
	return lines
}

func readFile(t *testing.T, parts ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// The README teaches what the script runs, to the letter.
func TestReadmeIsTheTutorial(t *testing.T) {
	readme := readFile(t, testmesh.ModuleRoot(t), "README.md")
	_, readme, ok := strings.Cut(readme, "**Two machines**")
	if !ok {
		t.Fatal("the README has no tutorial")
	}
	_, block, _ := strings.Cut(readme, "```sh\n")
	block, _, _ = strings.Cut(block, "```")
	want, got := tutorial(t, block), tutorial(t, readFile(t, "testdata", "tutorial.txt"))
	if len(want) != 3 || strings.Join(want, "\n") != strings.Join(got, "\n") {
		t.Errorf("the README teaches\n%s\nand testdata/tutorial.txt runs\n%s", strings.Join(want, "\n"), strings.Join(got, "\n"))
	}
}

// Two strangers pair and deploy in three commands and under a minute.
func TestTutorial(t *testing.T) {
	m := testmesh.New(t)
	nodes := map[string]*testmesh.Node{"alice": m.Peer("alice"), "bob": m.Peer("bob")}
	hello := testmesh.Wasm(t, "hello-wasm")
	peerctl := testmesh.Program(t, "peerctl")
	token, began := "", time.Now()
	type command = func(*testscript.TestScript, bool, []string)
	at := func(name string) command {
		return func(ts *testscript.TestScript, neg bool, args []string) {
			if neg || len(args) == 0 || args[0] != "peerctl" {
				ts.Fatalf("usage: %s$ peerctl …", name)
			}
			args = append([]string{"--home", nodes[name].Home}, args[1:]...)
			for i := range args {
				if args[i] == "TOKEN" { // what bob gave to alice
					args[i] = token
				}
			}
			cmd := exec.Command(peerctl, args...)
			cmd.Dir = ts.Getenv("WORK")
			var out, errs bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &errs
			err := cmd.Run()
			ts.Logf("%s%s", out.String(), errs.String())
			ts.Check(err)
			if word := strings.TrimSpace(out.String()); strings.HasPrefix(word, "peerjoin1-") {
				token = word
			}
		}
	}
	params := testscript.Params{
		Files: []string{filepath.Join("testdata", "tutorial.txt")},
		Setup: func(env *testscript.Env) error {
			data, err := os.ReadFile(hello)
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(env.WorkDir, "hello.wasm"), data, 0o600)
		},
		Cmds: map[string]command{
			"alice$": at("alice"), "bob$": at("bob"),
			"within": func(ts *testscript.TestScript, _ bool, args []string) {
				limit, err := time.ParseDuration(args[0])
				ts.Check(err)
				if took := time.Since(began); took > limit {
					ts.Fatalf("it took %s", took)
				}
			},
		},
	}
	t.Run("script", func(t *testing.T) { testscript.Run(t, params) }) // returns when its scripts have ended
	t.Run("seen from both sides", func(t *testing.T) {
		if w := find(t, nodes["alice"], "hello"); w.Peer != "bob" || w.State != "running" {
			t.Errorf("alice sees %+v", w)
		}
		if w := find(t, nodes["bob"], "hello"); w.State != "running" {
			t.Errorf("bob sees %+v", w)
		}
		t.Logf("from the first command to here: %s", time.Since(began).Round(time.Millisecond))
	})
}
