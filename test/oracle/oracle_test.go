// Package oracle compares what fuel/1 charges with what wasmtime charges. It is
// a module of its own so that wasmtime's C library never enters the product.
package oracle

import (
	"context"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bytecodealliance/wasmtime-go/v39"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"peercompute/pkg/fuel"
	"peercompute/pkg/fuel/fueltest"
)

const (
	budget = 1 << 50
	wasi   = "wasi_snapshot_preview1"
)

// trace is the fuel used at each call of env.look and, last, at the end.
type trace struct {
	fuel    []uint64
	results []uint64
	failed  bool
	starved bool // ran out of fuel
}

// call is an exported function with its arguments, or "" for instantiation only.
type call struct {
	name string
	args []int32
}

func onWasmtime(t *testing.T, code []byte, c call) trace {
	t.Helper()
	cfg := wasmtime.NewConfig()
	cfg.SetConsumeFuel(true)
	cfg.SetWasmTailCall(false)
	engine := wasmtime.NewEngineWithConfig(cfg)
	store := wasmtime.NewStore(engine)
	if err := store.SetFuel(budget); err != nil {
		t.Fatal(err)
	}
	var tr trace
	used := func() uint64 {
		left, err := store.GetFuel()
		if err != nil {
			t.Fatal(err)
		}
		return budget - left
	}
	linker := wasmtime.NewLinker(engine)
	if err := linker.FuncWrap("env", "look", func() { tr.fuel = append(tr.fuel, used()) }); err != nil {
		t.Fatal(err)
	}
	module, err := wasmtime.NewModule(engine, code)
	if err != nil {
		t.Fatal(err)
	}
	defined := make(map[string]bool) // Go imports some of them twice
	for _, i := range module.Imports() {
		if i.Module() != wasi || defined[*i.Name()] {
			continue
		}
		defined[*i.Name()] = true
		name, ty := *i.Name(), i.Type().FuncType()
		f := wasmtime.NewFunc(store, ty, func(c *wasmtime.Caller, vals []wasmtime.Val) ([]wasmtime.Val, *wasmtime.Trap) {
			args := make([]uint64, len(vals))
			for i, v := range vals {
				if v.Kind() == wasmtime.KindI64 {
					args[i] = uint64(v.I64())
				} else {
					args[i] = uint64(uint32(v.I32()))
				}
			}
			errno, err := wasiStub(name, c.GetExport("memory").Memory().UnsafeData(store), args)
			if err != nil {
				return nil, wasmtime.NewTrap(err.Error())
			}
			if len(ty.Results()) == 0 {
				return nil, nil
			}
			return []wasmtime.Val{wasmtime.ValI32(int32(errno))}, nil
		})
		if err := linker.Define(store, wasi, name, f); err != nil {
			t.Fatal(err)
		}
	}
	instance, err := linker.Instantiate(store, module)
	if err != nil {
		t.Fatal(err)
	}
	if c.name != "" {
		args := make([]any, len(c.args))
		for i, a := range c.args {
			args[i] = a
		}
		r, err := instance.GetFunc(store, c.name).Call(store, args...)
		if err != nil {
			tr.failed = true
			return tr
		}
		if v, ok := r.(int32); ok {
			tr.results = append(tr.results, uint64(uint32(v)))
		}
	}
	tr.fuel = append(tr.fuel, used())
	return tr
}

func onWazero(t *testing.T, code []byte, c call, o fuel.Options, budget uint64) trace {
	t.Helper()
	ctx := context.Background()
	o.Parity = true
	m, err := fuel.Instrument(code, o)
	if err != nil {
		t.Fatal(err)
	}
	rt := wazero.NewRuntime(ctx)
	defer rt.Close(ctx)
	meter := fuel.NewMeter(budget)
	var tr trace
	counter := func(m api.Module) api.MutableGlobal {
		return m.ExportedGlobal(fuel.CounterExport).(api.MutableGlobal)
	}
	host := func(module, name string, f func(api.MutableGlobal)) {
		_, err := rt.NewHostModuleBuilder(module).NewFunctionBuilder().WithGoModuleFunction(
			api.GoModuleFunc(func(_ context.Context, m api.Module, _ []uint64) { f(counter(m)) }), nil, nil).Export(name).Instantiate(ctx)
		if err != nil {
			t.Fatal(err)
		}
	}
	host(fuel.RefillModule, fuel.RefillName, func(g api.MutableGlobal) {
		v, err := meter.Refill(int64(g.Get()))
		if err != nil {
			panic(err)
		}
		g.Set(uint64(v))
	})
	host("env", "look", func(g api.MutableGlobal) { tr.fuel = append(tr.fuel, meter.Used(int64(g.Get()))) })
	defineWASI(t, rt, m.Code)
	mod, err := rt.InstantiateWithConfig(ctx, m.Code, wazero.NewModuleConfig().WithStartFunctions())
	if err != nil {
		t.Fatal(err)
	}
	if c.name != "" {
		args := make([]uint64, len(c.args))
		for i, a := range c.args {
			args[i] = uint64(uint32(a))
		}
		r, err := mod.ExportedFunction(c.name).Call(ctx, args...)
		if err != nil {
			tr.failed = true
			tr.starved = meter.Exceeded(int64(counter(mod).Get())) != nil || strings.Contains(err.Error(), "stack overflow")
			return tr
		}
		tr.results = r
	}
	tr.fuel = append(tr.fuel, meter.Used(int64(counter(mod).Get())))
	return tr
}

// defineWASI gives a guest on wazero the stub for each WASI function it imports.
func defineWASI(t *testing.T, rt wazero.Runtime, code []byte) {
	t.Helper()
	ctx := context.Background()
	compiled, err := rt.CompileModule(ctx, code)
	if err != nil {
		t.Fatal(err)
	}
	b := rt.NewHostModuleBuilder(wasi)
	for _, f := range compiled.ImportedFunctions() {
		module, name, _ := f.Import()
		if module != wasi {
			continue
		}
		params, results := f.ParamTypes(), f.ResultTypes()
		b.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(_ context.Context, m api.Module, stack []uint64) {
			memory, _ := m.Memory().Read(0, m.Memory().Size())
			errno, err := wasiStub(name, memory, slices.Clone(stack[:len(params)]))
			if err != nil {
				panic(err)
			}
			if len(results) > 0 {
				stack[0] = uint64(errno)
			}
		}), params, results).Export(name)
	}
	if _, err := b.Instantiate(ctx); err != nil {
		t.Fatal(err)
	}
}

func compare(t *testing.T, code []byte, c call) {
	t.Helper()
	want := onWasmtime(t, code, c)
	for name, o := range map[string]fuel.Options{
		"all": {}, "none": {Disable: fuel.AllOptimisations},
	} {
		got := onWazero(t, code, c, o, budget)
		if !slices.Equal(got.fuel, want.fuel) || got.failed != want.failed || !slices.Equal(got.results, want.results) {
			t.Errorf("%s, optimisations %s: fuel %v, wasmtime %v; results %v, wasmtime %v", c.name, name, got.fuel, want.fuel, got.results, want.results)
		}
	}
}

func TestKernelsChargeWhatWasmtimeCharges(t *testing.T) {
	code, err := os.ReadFile("../../pkg/fuel/testdata/kernels.wasm")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"tight", "fib", "matmul", "sieve", "collatz", "sha256", "leaf", "indirect", "interpreter", "quicksort", "string", "early"} {
		t.Run(name, func(t *testing.T) {
			for _, n := range []int32{0, 1, 2, 3, 7, 12} {
				compare(t, code, call{name, []int32{n}})
			}
		})
	}
}

func TestCasesChargeWhatWasmtimeCharges(t *testing.T) {
	code, err := os.ReadFile("../../pkg/fuel/testdata/cases.wasm")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"empty", "nop", "drop", "return", "block", "br", "br_function", "br_out", "loop_once", "dead", "call_leaf", "call_host", "drops", "vector", "references"} {
		compare(t, code, call{name, nil})
	}
	for _, name := range []string{
		"br_if", "br_if_value", "br_if_function", "if", "if_else", "br_table", "br_table_function", "loop", "loop_params", "loop_table", "nested", "dead_loop",
		"recursive", "own_local", "pair", "self", "call_branchy", "call_indirect", "loop_calls", "memory_fill", "memory_copy", "memory_init", "memory_grow", "table_fill", "table_copy", "table_init", "table_grow",
	} {
		for _, n := range []int32{1, 2} {
			compare(t, code, call{name, []int32{n}})
		}
	}
}

// TestGeneratedModulesChargeWhatWasmtimeCharges compares as far as the runs
// end within a budget; at a trap, it compares up to the last host call.
func TestGeneratedModulesChargeWhatWasmtimeCharges(t *testing.T) {
	ended := 0
	for seed := range 400 {
		r := rand.New(rand.NewPCG(uint64(seed), 11))
		data := make([]byte, 200+r.IntN(1500))
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		code := fueltest.Generate(data)
		c := call{fueltest.Entry, []int32{int32(r.IntN(20))}}
		got := onWazero(t, code, c, fuel.Options{}, 1<<18)
		if got.starved {
			continue
		}
		want := onWasmtime(t, code, c)
		if !slices.Equal(got.fuel, want.fuel) || got.failed != want.failed || !slices.Equal(got.results, want.results) {
			t.Fatalf("seed %d: fuel %v, wasmtime %v; results %v, wasmtime %v\n%x", seed, got.fuel, want.fuel, got.results, want.results, code)
		}
		if !got.failed {
			ended++
		}
	}
	t.Logf("%d modules ran to their end", ended)
	if ended < 50 {
		t.Errorf("only %d modules ran to their end", ended)
	}
}

func TestGoGuestChargesWhatWasmtimeCharges(t *testing.T) {
	out := filepath.Join(t.TempDir(), "guest.wasm")
	cmd := exec.Command("go", "build", "-o", out, ".")
	cmd.Dir = "testdata/guest"
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOWORK=off")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	code, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	compare(t, code, call{"_start", nil})
}
