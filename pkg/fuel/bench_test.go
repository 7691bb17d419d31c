package fuel

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"golang.org/x/sys/unix"
)

// kernels are the functions of testdata/kernels.c with arguments that make one
// call take some milliseconds.
var kernels = []struct {
	name string
	arg  uint64
}{
	{"tight", 4000},
	{"fib", 27},
	{"matmul", 20},
	{"sieve", 30},
	{"collatz", 300},
	{"sha256", 300},
	{"leaf", 2000},
	{"indirect", 2000},
	{"interpreter", 5000},
	{"quicksort", 15},
	{"string", 200},
	{"early", 300},
}

// threadTime is the CPU time that this thread has used.
func threadTime(t testing.TB) time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

// processTime is the CPU time that all threads of this process have used.
func processTime(t testing.TB) time.Duration {
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// placements is at how many places in memory the kernels are measured: where a
// branch lies moves the plain interpreter by half, and would be taken for metering.
const placements = 4

// moved is the module with n stores to its first global put before its first
// function, which does not change what that computes and moves all others.
func moved(t testing.TB, code []byte, n int) []byte {
	m, err := decode(code)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.scanAll(false); err != nil {
		t.Fatal(err)
	}
	f, section := m.funcs[0], m.sections[secCode]
	body := slices.Concat(code[f.body.from:f.decls.to], bytes.Repeat([]byte{opGlobalGet, 0, opGlobalSet, 0}, n), code[f.decls.to:f.body.to])
	content := appendU32(appendU32(nil, uint32(len(m.funcs))), uint32(len(body)))
	content = slices.Concat(content, body, code[f.body.to:section.to])
	out := bytes.Clone(code[:8])
	for r := (reader{b: code, i: 8}); r.more(); {
		id := r.byte()
		b := r.take(r.u32())
		if id == secCode {
			b = content
		}
		out = append(appendU32(append(out, id), uint32(len(b))), b...)
	}
	return out
}

// BenchmarkMetering reports how much slower metered kernels are than plain
// ones: least thread CPU time of several runs, interleaved, as ratios, of which
// the geometric mean over some placements counts. FUEL_DISABLE holds a number of
// Optimisation bits to leave out.
func BenchmarkMetering(b *testing.B) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var off Optimisation
	fmt.Sscan(os.Getenv("FUEL_DISABLE"), &off)
	code, err := os.ReadFile("testdata/kernels.wasm")
	if err != nil {
		b.Fatal(err)
	}
	ctx := context.Background()
	var hosts [placements][2]*host // plain, metered
	for p := range hosts {
		code := moved(b, code, 4*p)
		for i, code := range [][]byte{code, mustInstrument(b, code, Options{Disable: off})} {
			hosts[p][i] = newHost(b, wazero.NewRuntimeConfig(), 1<<60)
			if err := hosts[p][i].load(code, wazero.NewModuleConfig()); err != nil {
				b.Fatal(err)
			}
		}
	}
	var logs float64
	measured := 0
	for _, k := range kernels {
		if only := os.Getenv("FUEL_KERNEL"); only != "" && only != k.name {
			continue
		}
		var best [placements][2]time.Duration
		var results [2]uint64
		for round := range max(5, b.N) {
			for p := range hosts {
				for i, h := range hosts[p] {
					f := h.mod.ExportedFunction(k.name)
					from := threadTime(b)
					r, err := f.Call(ctx, k.arg)
					took := threadTime(b) - from
					if err != nil {
						b.Fatal(err)
					}
					results[i] = r[0]
					if round == 0 || took < best[p][i] {
						best[p][i] = took
					}
				}
			}
		}
		if results[0] != results[1] {
			b.Errorf("%s: metered result %d, plain %d", k.name, results[1], results[0])
		}
		log := 0.0
		for _, t := range best {
			log += math.Log(float64(t[1])/float64(t[0])) / placements
		}
		logs += log
		measured++
		b.ReportMetric(math.Exp(log), k.name+"/plain")
		b.Logf("%-12s ratio %.2f, plain and metered at each place: %v", k.name, math.Exp(log), best)
	}
	b.ReportMetric(math.Exp(logs/float64(measured)), "geomean/plain")
	b.ReportMetric(0, "ns/op")
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// BenchmarkGoGuest compares a metered Go program with the plain one.
func BenchmarkGoGuest(b *testing.B) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var off Optimisation
	fmt.Sscan(os.Getenv("FUEL_DISABLE"), &off)
	code := buildGo(b, "testdata/guest")
	ctx := context.Background()
	var hosts [2]*host
	var compiled [2]wazero.CompiledModule
	for i, c := range [][]byte{code, mustInstrument(b, code, Options{Disable: off})} {
		hosts[i] = newHost(b, wazero.NewRuntimeConfig(), 1<<60)
		wasi_snapshot_preview1.MustInstantiate(ctx, hosts[i].rt)
		var err error
		if compiled[i], err = hosts[i].rt.CompileModule(ctx, c); err != nil {
			b.Fatal(err)
		}
	}
	best := [2]time.Duration{math.MaxInt64, math.MaxInt64}
	for range max(5, b.N) {
		for i, h := range hosts {
			c := wazero.NewModuleConfig().WithName("").WithArgs("guest", "6").WithStdout(io.Discard).WithStderr(io.Discard)
			from := threadTime(b)
			m, err := h.rt.InstantiateModule(ctx, compiled[i], c)
			took := threadTime(b) - from
			if err != nil && !strings.Contains(err.Error(), "exit_code(0)") {
				b.Fatal(err)
			}
			if m != nil {
				m.Close(ctx)
			}
			best[i] = min(best[i], took)
		}
	}
	b.Logf("plain %.1fms metered %.1fms", ms(best[0]), ms(best[1]))
	b.ReportMetric(float64(best[1])/float64(best[0]), "metered/plain")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkInstrument measures the rewriting of a Go module.
func BenchmarkInstrument(b *testing.B) {
	code := buildGo(b, "testdata/guest")
	b.SetBytes(int64(len(code)))
	b.ReportAllocs()
	var n int
	for b.Loop() {
		m, err := Instrument(code, Options{})
		if err != nil {
			b.Fatal(err)
		}
		n = len(m.Code)
	}
	b.ReportMetric(float64(n)/float64(len(code)), "size/plain")
}

// BenchmarkCompile compares wazero's compilation of a metered Go module with
// that of the plain one.
func BenchmarkCompile(b *testing.B) {
	var off Optimisation
	fmt.Sscan(os.Getenv("FUEL_DISABLE"), &off)
	code := buildGo(b, "testdata/guest")
	ctx := context.Background()
	best := [2]time.Duration{math.MaxInt64, math.MaxInt64}
	for range max(3, b.N) {
		for i, c := range [][]byte{code, mustInstrument(b, code, Options{Disable: off})} {
			rt := wazero.NewRuntime(ctx)
			from := processTime(b)
			if _, err := rt.CompileModule(ctx, c); err != nil {
				b.Fatal(err)
			}
			best[i] = min(best[i], processTime(b)-from)
			rt.Close(ctx)
		}
	}
	b.Logf("plain %.0fms metered %.0fms", ms(best[0]), ms(best[1]))
	b.ReportMetric(float64(best[1])/float64(best[0]), "metered/plain")
	b.ReportMetric(0, "ns/op")
}
