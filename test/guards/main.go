// Guards takes the guards of the threat model away, one at a time, and runs the
// test that should notice: a check counts only if it goes red without what it
// checks. The tree itself is not touched: the changed file lies in a temporary
// directory and the compiler is told to read it instead.
//
//	go run ./test/guards            all of guards.txt
//	go run ./test/guards -only V3   those with this in their title
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
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
	if err := run(ctx, *only); err != nil {
		fmt.Fprintln(os.Stderr, "guards:", err)
		os.Exit(1)
	}
}

const (
	table = "test/guards/guards.txt"
	tries = 3 // for a test that notices only sometimes, which is said
)

func run(ctx context.Context, only string) error {
	text, err := os.ReadFile(table)
	if err != nil {
		return fmt.Errorf("%w (run it from the module's root)", err)
	}
	guards, err := parse(string(text))
	if err != nil {
		return err
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
	var chosen []guard
	for _, g := range guards {
		if strings.Contains(g.title, only) {
			chosen = append(chosen, g)
		}
	}
	if len(chosen) == 0 {
		return fmt.Errorf("no guard has %q in its title", only)
	}
	next, results := make(chan int), make([]error, len(chosen))
	var out sync.Mutex
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for i := range next {
				began := time.Now()
				said := "red"
				for n := 1; n <= tries && ctx.Err() == nil; n++ {
					results[i] = chosen[i].try(ctx, filepath.Join(dir, fmt.Sprintf("%d-%d", i, n)), strings.TrimSpace(string(flags)))
					if results[i] == nil {
						if n > 1 {
							said = fmt.Sprintf("red, at try %d: by luck of a race", n)
						}
						break
					}
					said = "NOT NOTICED: " + results[i].Error()
				}
				out.Lock()
				fmt.Printf("%-72s %5.1f s  %s\n", chosen[i].title, time.Since(began).Seconds(), said)
				out.Unlock()
			}
		})
	}
	for i := range chosen {
		next <- i
	}
	close(next)
	wg.Wait()
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	var unnoticed []string // said once more at the end, where a long log is read
	for i, err := range results {
		if err != nil {
			unnoticed = append(unnoticed, fmt.Sprintf("%s: %v", chosen[i].title, err))
		}
	}
	if len(unnoticed) > 0 {
		return fmt.Errorf("%d of %d guards can be taken away without a test going red:\n%s", len(unnoticed), len(chosen), strings.Join(unnoticed, "\n"))
	}
	fmt.Printf("%d guards taken away, one at a time: each turned its test red\n", len(chosen))
	return nil
}

// guard is what keeps something out, and the test that knows. It is several edits
// where one place would make up for the other.
type guard struct {
	title string
	edits []edit
	pkg   string // of the test
	test  string // regular expression of test names
}

// edit takes one place away.
type edit struct {
	file     string
	from, to string // a part of one line, and what takes its place
}

// without is each file as it is with the guard gone.
func (g guard) without() (map[string]string, error) {
	out := map[string]string{}
	for _, e := range g.edits {
		text, ok := out[e.file]
		if !ok {
			data, err := os.ReadFile(e.file)
			if err != nil {
				return nil, err
			}
			text = string(data)
		}
		if n := strings.Count(text, e.from); n != 1 {
			return nil, fmt.Errorf("%s has %q %d times, want once", e.file, e.from, n)
		}
		out[e.file] = strings.Replace(text, e.from, e.to, 1)
	}
	return out, nil
}

// try runs the test without the guard; nil means that it went red. flags are those
// that every build here has.
func (g guard) try(ctx context.Context, dir, flags string) error {
	changed, err := g.without()
	if err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	var replaced struct{ Replace map[string]string }
	replaced.Replace = map[string]string{}
	for file, text := range changed {
		whole, err := filepath.Abs(file)
		if err != nil {
			return err
		}
		copied := filepath.Join(dir, fmt.Sprint(len(replaced.Replace))+filepath.Base(file))
		if err := os.WriteFile(copied, []byte(text), 0o644); err != nil {
			return err
		}
		replaced.Replace[whole] = copied
	}
	data, err := json.Marshal(replaced)
	if err != nil {
		return err
	}
	overlay := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlay, data, 0o644); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-failfast", "-timeout=150s", "-run", g.test, g.pkg)
	// By the environment, so that the programs which a test builds are without it too.
	cmd.Env = append(os.Environ(), "GOFLAGS="+strings.TrimSpace(flags+" -overlay="+overlay))
	out, err := cmd.CombinedOutput()
	said := string(out)
	switch {
	case err == nil && strings.Contains(said, "no tests to run"):
		return fmt.Errorf("there is no test %s in %s", g.test, g.pkg)
	case err == nil && !strings.Contains(said, "ok "):
		return fmt.Errorf("nothing was run: %s", said)
	case err == nil:
		return fmt.Errorf("%s passes without it", g.test)
	case ctx.Err() != nil:
		return fmt.Errorf("not known: %w", ctx.Err())
	case strings.Contains(said, "panic: test timed out"): // which a busy machine can do too
		return fmt.Errorf("not known: %s ran out of time", g.test)
	case strings.Contains(said, "[build failed]") || strings.Contains(said, "[setup failed]") || !strings.Contains(said, "FAIL"):
		return fmt.Errorf("it does not build:\n%s", said)
	}
	return nil
}
