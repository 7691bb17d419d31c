// Guards takes the guards of the threat model away, one at a time, and runs the
// test that should notice: a check counts only if it goes red without what it
// checks. The tree itself is not touched: the changed files lie in a temporary
// directory and the compiler is told to read them instead.
//
// The tests of a package are built once, with a switch at each guard (switch.go), and
// must pass while none is taken away. A guard that the switch cannot take away, or
// whose test does not notice that, gets a build of its own.
//
//	go run ./test/guards            all of guards.txt
//	go run ./test/guards -only V3   those with this in their title
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	only := flag.String("only", "", "the guards with this in their title")
	flag.Parse()
	if err := run(ctx, os.Stdout, *only); err != nil {
		fmt.Fprintln(os.Stderr, "guards:", err)
		os.Exit(1)
	}
}

const (
	table = "test/guards/guards.txt"
	tries = 3 // for a test that notices only sometimes, which is said
	slots = 2 // tests that run at once
)

func run(ctx context.Context, out io.Writer, only string) error {
	text, err := os.ReadFile(table)
	if err != nil {
		return fmt.Errorf("%w (run it from the module's root)", err)
	}
	all, err := parse(string(text))
	if err != nil {
		return err
	}
	var guards []guard
	for _, g := range all {
		if strings.Contains(g.title, only) {
			guards = append(guards, g)
		}
	}
	if len(guards) == 0 {
		return fmt.Errorf("no guard has %q in its title", only)
	}
	flags, err := exec.CommandContext(ctx, "go", "env", "GOFLAGS").Output()
	if err != nil {
		return fmt.Errorf("go env GOFLAGS: %w", err)
	}
	dir, err := os.MkdirTemp("", "guards")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	shared, err := withSwitches(guards)
	if err != nil {
		return err
	}
	t := trial{dir: dir, flags: strings.TrimSpace(string(flags)), programs: filepath.Join(dir, "programs")}
	if t.overlay, err = writeOverlay(filepath.Join(dir, "switches"), shared.files); err != nil {
		return err
	}
	packages := map[string][]int{} // guards by the package of their tests
	for i, g := range guards {
		packages[g.pkg] = append(packages[g.pkg], i)
	}
	results := make([]error, len(guards))
	free := make(chan struct{}, slots)
	var wg sync.WaitGroup
	inSlot := func(do func()) {
		wg.Go(func() {
			free <- struct{}{}
			defer func() { <-free }()
			do()
		})
	}
	var mu sync.Mutex
	say := func(title string, began time.Time, said string) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(out, "%-72s %5.1f s  %s\n", title, time.Since(began).Seconds(), said)
	}
	for pkg, of := range packages {
		inSlot(func() {
			began := time.Now()
			bin, err := t.build(ctx, pkg, guards, of)
			said := "built; green with every guard"
			switch {
			case err != nil:
				said = err.Error()
			case bin == "":
				said = "does not build with switches; each guard gets a build of its own"
			}
			say(pkg, began, said)
			for _, i := range of {
				if err != nil {
					results[i] = errors.New("its tests fail before it is taken away")
					continue
				}
				inSlot(func() {
					began := time.Now()
					var said string
					if shared.has[i] {
						said, results[i] = t.take(ctx, guards[i], i, bin)
					} else {
						said, results[i] = t.take(ctx, guards[i], i, "")
					}
					say(guards[i].title, began, said)
				})
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	var unnoticed []string // said once more at the end, where a long log is read
	for i, err := range results {
		if err != nil {
			unnoticed = append(unnoticed, fmt.Sprintf("%s: %v", guards[i].title, err))
		}
	}
	if len(unnoticed) > 0 {
		return fmt.Errorf("%d of %d guards can be taken away without a test going red:\n%s", len(unnoticed), len(guards), strings.Join(unnoticed, "\n"))
	}
	fmt.Fprintf(out, "%d guards taken away, one at a time: each turned its test red\n", len(guards))
	return nil
}
