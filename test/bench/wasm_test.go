package main

import (
	"context"
	"errors"
	"strings"
	"testing"
)

func TestWasmRowsAreReadAndPrinted(t *testing.T) {
	bench := "goos: linux\nBenchmarkMetering-2\t1\t0 ns/op\t1.25 fib/plain\t1.50 geomean/plain\nBenchmarkGoGuest \t1\t0 ns/op\t1.75 metered/plain\nPASS\n"
	oracle := `[{"kernel":"fib","ms":{"wazero":[3,5],"wasmtime":[2,2],"wazero, fuel":[6],"wasmtime, fuel":[4]}}]`
	for _, c := range []struct {
		name, text string
		parse      func(string) ([]Row, error)
		want       []string // in the table; none: an error
	}{
		{"metering", bench, meteringRows, []string{"wazero metered ×", "CPU time, kernel fib × 1.00 1.25 1.250", "kernels, geometric mean × 1.00 1.50", "Go guest × 1.00 1.75"}},
		{"metering, repeated", bench + bench, meteringRows, []string{"kernel fib × 1.00 1.25 1.250"}},
		{"no benchmark", "PASS\n", meteringRows, nil},
		{"a ratio that is none", "BenchmarkMetering 1 x fib/plain\n", meteringRows, nil},
		{"wasmtime", oracle, wasmtimeRows, []string{"wasmtime wasmtime, fuel × wazero × wazero, fuel ×", "kernel fib ms 2.00 4.00 2.000 4.00 2.000 6.00 3.000"}},
		{"nothing measured", "[]", wasmtimeRows, nil},
		{"no JSON", "panic", wasmtimeRows, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			rows, err := c.parse(c.text)
			if (err != nil) != (c.want == nil) {
				t.Fatalf("got %v, %v", rows, err)
			}
			var out strings.Builder
			Section{Rows: rows}.print(&out)
			table := strings.Join(strings.Fields(out.String()), " ")
			for _, want := range c.want {
				if !strings.Contains(table, want) {
					t.Errorf("no %q in:\n%s", want, out.String())
				}
			}
		})
	}
}

func TestFailedRowsLeaveTheOthers(t *testing.T) {
	fails := func(err error) func(context.Context, *bench, *Section) error {
		return func(context.Context, *bench, *Section) error { return err }
	}
	var out Section
	err := measureParts(t.Context(), &bench{}, &out, []group{
		{"broken", fails(errors.New("no luck\nat all"))},
		{"absent", fails(skipped("clang is not installed"))},
		{"sound", func(_ context.Context, _ *bench, out *Section) error {
			var s series
			s.add("native", 4)
			s.add("wasm", 1)
			out.Rows = append(out.Rows, s.row("CGI, C", "req/s"))
			return nil
		}},
	})
	if err == nil || !strings.Contains(err.Error(), "broken: no luck") || strings.Contains(err.Error(), "clang") {
		t.Errorf("got %v", err)
	}
	var text strings.Builder
	out.print(&text)
	table := strings.Join(strings.Fields(text.String()), " ")
	for _, want := range []string{"broken no figures: no luck", "absent no figures: skipped: clang is not installed", "CGI, C req/s 4.00 1.00 0.250"} {
		if !strings.Contains(table, want) {
			t.Errorf("no %q in:\n%s", want, text.String())
		}
	}
	if strings.Contains(table, "at all") {
		t.Errorf("more than one line of the reason:\n%s", text.String())
	}
}
