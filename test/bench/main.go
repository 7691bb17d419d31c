// Bench measures the product with its real programs, beside rivals in the same
// run: rounds are interleaved (A B A B …), figures are medians, and what counts is
// the ratio, because machines differ. Progress goes to stderr, the table to
// stdout, everything measured to a JSON file. All that it starts and makes is gone
// when it ends.
//
//	go run ./test/bench -out out/bench.json
//	go run ./test/bench -only a,b -quick
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) > 1 && strings.HasPrefix(os.Args[1], rolePrefix) {
		if err := playRole(os.Args[1], os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, os.Args[1]+":", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var o options
	flag.StringVar(&o.out, "out", "", "write everything measured to this JSON file")
	flag.StringVar(&o.bin, "bin", "bin", "where peerd, peerctl and peergate are")
	flag.StringVar(&o.only, "only", "", "sections to run, such as a,b; empty = all")
	flag.BoolVar(&o.quick, "quick", false, "few and short rounds: to try it, not to quote it")
	flag.Parse()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench failed:", err)
		os.Exit(1)
	}
}

type options struct {
	out, bin, only string
	quick          bool
}

// section is one part of the measurements.
type section struct {
	key, title string
	run        func(context.Context, *bench, *Section) error
}

// sections in the order they run: memory first, before anything made load.
func sections() []section {
	return []section{
		{"c", "Memory of idle daemons", measureMemory},
		{"a", "Gateway and tunnel against the workload's own address", measureProxy},
		{"b", "Deploy → first 200 against docker run → first 200", measureDeploy},
		{"d", "Admission decisions, durable", measureAdmission},
		{"e", "WebAssembly", measureWasm},
		{"f", "Many peers, many nonces, many streams", measureTrust},
		{"g", "Fifty deploys at once against fifty docker run -d", measureMany},
	}
}

func run(ctx context.Context, o options) (err error) {
	chosen, err := choose(o.only)
	if err != nil {
		return err
	}
	if o.bin, err = filepath.Abs(o.bin); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "peerbench")
	if err != nil {
		return err
	}
	b := &bench{dir: dir, bin: o.bin, quick: o.quick}
	defer func() {
		if err != nil {
			b.printLogs()
		}
		err = errors.Join(err, b.end(), os.RemoveAll(dir))
	}()
	r := Result{Machine: describeMachine(dir), Started: time.Now().UTC(), Quick: o.quick}
	r.Warnings = r.Machine.warnings(o.quick)
	for _, w := range r.Warnings {
		note("warning: %s", w)
	}
	err = r.measure(ctx, b, chosen)
	r.LoadAfter = loadAverage()
	r.print(os.Stdout)
	if o.out != "" {
		err = errors.Join(err, r.save(o.out))
	}
	return err
}

// measure runs the sections. One that fails does not keep the others from being
// measured, but the error says so.
func (r *Result) measure(ctx context.Context, b *bench, chosen []section) error {
	var errs []error
	for _, s := range chosen {
		note("(%s) %s", s.key, s.title)
		out := Section{Key: s.key, Title: s.title}
		began := time.Now()
		err := s.run(ctx, b, &out)
		out.Seconds = time.Since(began).Seconds()
		var skip skipped
		switch {
		case ctx.Err() != nil:
			return errors.New("interrupted")
		case errors.As(err, &skip):
			out.Skipped = string(skip)
		case err != nil:
			note("    failed: %v", err)
			out.Failed = err.Error()
			errs = append(errs, fmt.Errorf("section %s: %w", s.key, err))
		}
		r.Sections = append(r.Sections, out)
	}
	slices.SortFunc(r.Sections, func(x, y Section) int { return strings.Compare(x.Key, y.Key) })
	return errors.Join(errs...)
}

func choose(only string) ([]section, error) {
	all := sections()
	if only == "" {
		return all, nil
	}
	want := strings.Split(only, ",")
	for _, k := range want {
		if !slices.ContainsFunc(all, func(s section) bool { return s.key == k }) {
			return nil, fmt.Errorf("there is no section %q", k)
		}
	}
	return slices.DeleteFunc(all, func(s section) bool { return !slices.Contains(want, s.key) }), nil
}

// skipped is why a section, or a part of one, could not be measured here.
type skipped string

func (s skipped) Error() string { return "skipped: " + string(s) }

func note(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
