package main

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

// measureMetering runs pkg/fuel's own benchmarks, which interleave metered and
// plain runs in one thread and report the ratio of their CPU times.
func measureMetering(ctx context.Context, b *bench, out *Section) error {
	note("    go test -bench of pkg/fuel")
	text, err := output(ctx, nil, "go", "test", "-run=^$", "-bench=^Benchmark(Metering|GoGuest)$", "-benchtime=1x", fmt.Sprintf("-count=%d", b.rounds(3)), "./pkg/fuel")
	if err != nil {
		return err
	}
	rows, err := meteringRows(text)
	out.Rows = append(out.Rows, rows...)
	return err
}

// meteringRows reads what go test -bench printed: lines of a name, a count, and
// pairs of a value and its unit. Units that end in /plain are ratios.
func meteringRows(text string) ([]Row, error) {
	var names []string
	all := map[string]*series{}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 4 || !strings.HasPrefix(f[0], "Benchmark") {
			continue
		}
		for i := 2; i+1 < len(f); i += 2 {
			name, ok := strings.CutSuffix(f[i+1], "/plain")
			if !ok {
				continue
			}
			ratio, err := strconv.ParseFloat(f[i], 64)
			if err != nil {
				return nil, fmt.Errorf("go test -bench printed %q for %s", f[i], f[i+1])
			}
			switch {
			case strings.HasPrefix(f[0], "BenchmarkGoGuest"):
				name = "Go guest"
			case name == "geomean":
				name = "kernels, geometric mean"
			default:
				name = "kernel " + name
			}
			if all[name] == nil {
				names, all[name] = append(names, name), &series{}
			}
			all[name].add("wazero", 1)
			all[name].add("metered", ratio)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("go test -bench of pkg/fuel printed no ratios")
	}
	var rows []Row
	for _, name := range names {
		rows = append(rows, all[name].row("CPU time, "+name, "×"))
	}
	return rows, nil
}

// measureWasmtime has the oracle's module, which needs cgo, run the same kernels on
// wasmtime and on wazero.
func measureWasmtime(ctx context.Context, b *bench, out *Section) error {
	if _, err := exec.LookPath("gcc"); err != nil {
		return skipped("wasmtime needs cgo, and gcc is not installed")
	}
	note("    go run test/oracle/kernels")
	text, err := output(ctx, nil, "env", "CGO_ENABLED=1", "GOWORK=off", "go", "run", "-C", "test/oracle", "./kernels", "-rounds", fmt.Sprint(b.rounds(5)))
	if err != nil {
		return err
	}
	rows, err := wasmtimeRows(text)
	out.Rows = append(out.Rows, rows...)
	out.Notes = append(out.Notes, "the kernels in ms are wall time, and suffer from other load; CPU time is the least of several runs in one thread")
	return err
}

// wasmtimeRows reads the oracle's one line of JSON.
func wasmtimeRows(text string) ([]Row, error) {
	var kernels []struct {
		Kernel string               `json:"kernel"`
		Millis map[string][]float64 `json:"ms"`
	}
	if err := decode(text, &kernels); err != nil {
		return nil, fmt.Errorf("test/oracle/kernels printed no JSON: %w", err)
	}
	if len(kernels) == 0 {
		return nil, fmt.Errorf("test/oracle/kernels measured nothing")
	}
	var rows []Row
	for _, k := range kernels {
		s := series{samples: k.Millis}
		rows = append(rows, s.row("kernel "+k.Kernel, "ms", "wasmtime", "wasmtime, fuel", "wazero", "wazero, fuel"))
	}
	return rows, nil
}
