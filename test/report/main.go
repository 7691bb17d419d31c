// Report runs the project's tests and says plainly what passed, what failed and
// what was skipped for which reason. With -fuzz it runs every fuzz target instead.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout)) }

func run(args []string, out io.Writer) int {
	fs := flag.NewFlagSet("report", flag.ContinueOnError)
	fuzz := fs.String("fuzz", "", "run every fuzz target this long instead of the tests")
	timeout := fs.String("timeout", "25m", "for one package's tests")
	if fs.Parse(args) != nil {
		return 2
	}
	patterns := fs.Args()
	if len(patterns) == 0 {
		patterns = []string{"./..."}
	}
	if *fuzz != "" {
		return fuzzAll(out, *fuzz, patterns)
	}
	pkgs, err := list(patterns)
	if err != nil {
		fmt.Fprintln(out, "cannot list the packages:", err)
		return 1
	}
	base := []string{"test", "-json", "-timeout", *timeout}
	if _, err := exec.LookPath("gcc"); err != nil {
		fmt.Fprintln(out, "note: no C compiler, so the race detector is off")
		return tests(out, append(base, pkgs...))
	}
	slices.SortStableFunc(pkgs, func(a, b string) int { return turn(a) - turn(b) })
	var runs [][]string
	var pure, rest []string
	for _, p := range pkgs {
		if slices.Contains(plain, p) {
			pure = append(pure, p)
		} else {
			rest = append(rest, p)
		}
	}
	if len(rest) > 0 {
		runs = append(runs, append(append(slices.Clone(base), "-race"), rest...))
	}
	if len(pure) > 0 { // beside the others, which wait more than they compute
		runs = append(runs, append(append(slices.Clone(base), "-p=1"), pure...))
	}
	return tests(out, runs...)
}

// plain lists packages that run without the race detector, which would make their
// long tests ten times longer: fuel starts no goroutine, and the attacks and faults
// come in numbers against parts whose own tests run with it.
var plain = []string{"peercompute/pkg/fuel", "peercompute/test/security", "peercompute/test/fault"}

// slow lists the packages whose tests take longest. They are begun first, so that
// no core is idle while the last of them runs.
var slow = []string{"peercompute/test/e2e", "peercompute/pkg/driver/wasm", "peercompute/cmd/peerctl", "peercompute/pkg/driver/docker", "peercompute/test/security"}

// turn is when a package has its turn; those that are not slow come last.
func turn(pkg string) int {
	if i := slices.Index(slow, pkg); i >= 0 {
		return i
	}
	return len(slow)
}

func list(patterns []string) ([]string, error) {
	out, err := exec.Command("go", append([]string{"list"}, patterns...)...).Output()
	return strings.Fields(string(out)), err
}

// event is one line of `go test -json`.
type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

type result struct {
	mu sync.Mutex

	passed, failed, skipped int
	reasons                 map[string][]string // reason → tests
	broken                  []string
}

func tests(out io.Writer, runs ...[]string) int {
	r := result{reasons: map[string][]string{}}
	start := time.Now()
	ended := make(chan error)
	for _, args := range runs {
		go func() { ended <- r.run(out, args) }()
	}
	ok := true
	for range runs {
		ok = <-ended == nil && ok
	}
	r.print(out, time.Since(start))
	if !ok || r.failed > 0 || r.passed == 0 {
		return 1
	}
	return 0
}

func (r *result) run(out io.Writer, args []string) error {
	cmd := exec.Command("go", args...)
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		fmt.Fprintln(out, "cannot run the tests:", err)
		return err
	}
	r.collect(out, pipe)
	return cmd.Wait()
}

func (r *result) collect(out io.Writer, in io.Reader) {
	logs := map[string][]string{} // output of each test, until it is known how it ended
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			r.mu.Lock()
			fmt.Fprintln(out, lines.Text()) // a build failure is not JSON
			r.mu.Unlock()
			continue
		}
		key := e.Package + " " + e.Test
		switch e.Action {
		case "output", "build-output":
			if len(logs[key]) < 2000 {
				logs[key] = append(logs[key], e.Output)
			}
			continue
		case "pass", "fail", "skip":
		default:
			continue
		}
		r.add(out, e, logs[key])
		delete(logs, key)
	}
}

func (r *result) add(out io.Writer, e event, log []string) {
	name := strings.TrimSpace(strings.TrimPrefix(e.Package, "peercompute/") + " " + e.Test)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case e.Action == "fail":
		if e.Test != "" {
			r.failed++
		}
		r.broken = append(r.broken, name)
		fmt.Fprintf(out, "FAIL  %s (%.1fs)\n%s", name, e.Elapsed, strings.Join(log, ""))
	case e.Test == "" && e.Action == "pass":
		fmt.Fprintf(out, "ok    %s (%.1fs)\n", name, e.Elapsed)
	case e.Action == "pass":
		r.passed++
	case e.Action == "skip" && e.Test != "":
		r.skipped++
		why := reason(log)
		r.reasons[why] = append(r.reasons[why], name)
	}
}

// reason finds what the test said when it skipped itself.
func reason(log []string) string {
	for _, l := range slices.Backward(log) {
		l = strings.TrimSpace(l)
		if l == "" || strings.HasPrefix(l, "---") || strings.HasPrefix(l, "===") {
			continue
		}
		if _, after, ok := strings.Cut(l, ".go:"); ok {
			if _, msg, ok := strings.Cut(after, ": "); ok {
				return msg
			}
		}
		return l
	}
	return "no reason given"
}

func (r *result) print(out io.Writer, took time.Duration) {
	if r.skipped > 0 {
		fmt.Fprintln(out, "\nSkipped, and why:")
		why := make([]string, 0, len(r.reasons))
		for k := range r.reasons {
			why = append(why, k)
		}
		slices.Sort(why)
		for _, k := range why {
			fmt.Fprintf(out, "  %s\n", k)
			for _, name := range r.reasons[k] {
				fmt.Fprintf(out, "      %s\n", name)
			}
		}
	}
	if len(r.broken) > 0 {
		fmt.Fprintln(out, "\nFailed:")
		for _, name := range r.broken {
			fmt.Fprintf(out, "  %s\n", name)
		}
	}
	fmt.Fprintf(out, "\nin %s\n%d passed, %d failed, %d skipped\n", took.Round(time.Second), r.passed, r.failed, r.skipped)
}

// fuzzAll runs each fuzz target of the packages in turn.
func fuzzAll(out io.Writer, long string, patterns []string) int {
	pkgs, err := list(patterns)
	if err != nil {
		fmt.Fprintln(out, "cannot list the packages:", err)
		return 1
	}
	ran, failed := 0, 0
	for _, pkg := range pkgs {
		names, err := exec.Command("go", "test", "-list", "^Fuzz", pkg).Output()
		if err != nil {
			fmt.Fprintf(out, "FAIL  %s does not build\n", pkg)
			failed++
			continue
		}
		for name := range strings.FieldsSeq(string(names)) {
			if !strings.HasPrefix(name, "Fuzz") {
				continue
			}
			fmt.Fprintf(out, "fuzz  %s %s for %s\n", strings.TrimPrefix(pkg, "peercompute/"), name, long)
			log, err := exec.Command("go", "test", "-run", "^$", "-fuzz", "^"+name+"$", "-fuzztime", long, pkg).CombinedOutput()
			ran++
			if err != nil {
				failed++
				fmt.Fprintf(out, "FAIL  %s %s\n%s", pkg, name, log)
			}
		}
	}
	fmt.Fprintf(out, "%d passed, %d failed\n", ran-failed, failed)
	if failed > 0 || ran == 0 {
		return 1
	}
	return 0
}
