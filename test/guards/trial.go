package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// trial runs tests with guards taken away.
type trial struct {
	dir     string
	flags   string // that every build here has
	overlay string // of the tree with switches
	// Directory of programs of that tree, which tests share; see testmesh.ProgramsEnv.
	programs string
}

// goFlags has programs that a test builds made of the same tree as itself.
func (t trial) goFlags(overlay string) string {
	return "GOFLAGS=" + strings.TrimSpace(t.flags+" -overlay="+overlay)
}

// build makes a package's tests with switches, and requires that they pass while no
// guard is away. No path means that they do not build.
func (t trial) build(ctx context.Context, pkg string, guards []guard, of []int) (bin string, err error) {
	bin = filepath.Join(t.dir, strings.ReplaceAll(filepath.Clean(pkg), "/", "-")+".test")
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-ldflags=-s -w", "-o", bin, pkg)
	cmd.Env = append(os.Environ(), t.goFlags(t.overlay))
	if cmd.Run() != nil {
		return "", nil // each guard's own build says which it is
	}
	var tests []string
	for _, i := range of {
		tests = append(tests, guards[i].test)
	}
	for range tries {
		var out []byte
		if out, err = t.test(ctx, bin, pkg, strings.Join(tests, "|"), "", 10*time.Minute); err == nil {
			return bin, nil
		}
		err = fmt.Errorf("its tests fail with every guard in place: %w\n%s", err, out)
	}
	return "", err
}

// test runs tests that were built, with the guard of that number away.
func (t trial) test(ctx context.Context, bin, pkg, names, away string, limit time.Duration) ([]byte, error) {
	cmd := exec.CommandContext(ctx, bin, "-test.run="+names, "-test.failfast", "-test.paniconexit0", "-test.timeout="+limit.String())
	cmd.Dir = pkg
	cmd.Env = append(cmd.Environ(), t.goFlags(t.overlay), switchEnv+"="+away, programsEnv+"="+t.programs)
	cmd.WaitDelay = 10 * time.Second
	return cmd.CombinedOutput()
}

// take takes guard i away and says what its test made of it; nil is red. bin has
// a switch for it, if any.
func (t trial) take(ctx context.Context, g guard, i int, bin string) (said string, err error) {
	if bin != "" {
		if t.switchOff(ctx, g, i, bin) == nil {
			return "red", nil
		}
	}
	for n := 1; n <= tries && ctx.Err() == nil; n++ {
		if err = t.leaveOut(ctx, g, filepath.Join(t.dir, fmt.Sprintf("%d-%d", i, n))); err == nil {
			said = "red, in a build of its own"
			if n > 1 {
				said += fmt.Sprintf(", at try %d: by luck of a race", n)
			}
			return said, nil
		}
	}
	if ctx.Err() != nil {
		return "interrupted", ctx.Err()
	}
	return fmt.Sprintf("NOT NOTICED: %v", err), err
}

const (
	programsEnv = "PEERCOMPUTE_TEST_PROGRAMS"

	testLimit = 150 * time.Second
	takeLimit = 5 * time.Minute // with a build
)

// switchOff runs the test with the guard's switch; nil means that it went red.
func (t trial) switchOff(ctx context.Context, g guard, i int, bin string) error {
	ctx, cancel := context.WithTimeout(ctx, takeLimit)
	defer cancel()
	out, err := t.test(ctx, bin, g.pkg, g.test, strconv.Itoa(i), testLimit)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return fmt.Errorf("not known: %w", err)
	}
	return g.judge(ctx, string(out), err)
}

// leaveOut builds the test without the guard; nil means that it went red.
func (t trial) leaveOut(ctx context.Context, g guard, dir string) error {
	changed, err := g.without()
	if err != nil {
		return err
	}
	overlay, err := writeOverlay(dir, changed)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, takeLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "test", "-vet=off", "-count=1", "-failfast", "-timeout="+testLimit.String(), "-run", g.test, g.pkg)
	cmd.Env = append(os.Environ(), t.goFlags(overlay))
	out, err := cmd.CombinedOutput()
	said := string(out)
	switch {
	case err == nil && !strings.Contains(said, "ok "):
		return fmt.Errorf("nothing was run: %s", said)
	case err != nil && (strings.Contains(said, "[build failed]") || strings.Contains(said, "[setup failed]") || !strings.Contains(said, "FAIL")):
		return fmt.Errorf("it does not build:\n%s", said)
	}
	return g.judge(ctx, said, err)
}

// judge is nil where the test failed for want of the guard.
func (g guard) judge(ctx context.Context, said string, failed error) error {
	switch {
	case failed == nil && strings.Contains(said, "no tests to run"):
		return fmt.Errorf("there is no test %s in %s", g.test, g.pkg)
	case failed == nil:
		return fmt.Errorf("%s passes without it", g.test)
	case ctx.Err() != nil:
		return fmt.Errorf("not known: %w", ctx.Err())
	case strings.Contains(said, "cannot build ./"): // a program that the test needs
		return fmt.Errorf("it does not build:\n%s", said)
	case strings.Contains(said, "panic: test timed out"): // which a busy machine can do too
		return fmt.Errorf("not known: %s ran out of time", g.test)
	}
	return nil
}
