package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"peercompute/pkg/control"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"peerctl": main})
}

// TestScripts runs the real program against a node that is only played. The
// scripts are also its documentation by example.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv(control.HomeEnv, filepath.Join(env.WorkDir, "h"))
			env.Setenv("BOB", idBob)
			env.Setenv("ALICE", idAlice)
			files, err := filepath.Abs("../../pkg/compose/testdata")
			if err != nil {
				return err
			}
			env.Setenv("COMPOSE_FILES", files)
			for name, head := range map[string]string{
				"hello.wasm": coreHeader, "job.wasm": coreHeader, "part.wasm": wasmMagic + "\x0d\x00\x01\x00",
				"short.wasm": wasmMagic, "noext": coreHeader,
			} {
				if err := os.WriteFile(filepath.Join(env.WorkDir, name), []byte(head), 0o600); err != nil {
					return err
				}
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"node": cmdNode, "exits": cmdExits},
	})
}

// cmdNode starts the node of this script: node
func cmdNode(ts *testscript.TestScript, _ bool, _ []string) {
	_, err := startFake(ts.Getenv(control.HomeEnv), ts.Defer)
	ts.Check(err)
}

// cmdExits runs a program and wants one exit status: exits STATUS PROGRAM ARGS…
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	if err != nil || neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS PROGRAM ARGS…")
	}
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("cannot run %s: %v", args[1], err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("%v: exit status %d, want %d", args[1:], got, want)
	}
}
