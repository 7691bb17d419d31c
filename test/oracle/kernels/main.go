// Kernels times the functions of pkg/fuel/testdata/kernels.wasm on wasmtime and on
// wazero, each with and without fuel, interleaved. It prints one line of JSON, for
// test/bench.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/bytecodealliance/wasmtime-go/v39"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"peercompute/pkg/fuel"
)

const budget = 1 << 50

// kernels with arguments that make one call take some milliseconds.
var kernels = []struct {
	name string
	arg  int32
}{{"fib", 27}, {"matmul", 20}, {"sieve", 30}, {"sha256", 300}, {"interpreter", 5000}, {"quicksort", 15}}

// engine runs one exported function.
type engine struct {
	name string
	run  func(name string, arg int32) (int32, error)
}

type result struct {
	Kernel string               `json:"kernel"`
	Millis map[string][]float64 `json:"ms"` // one sample a round, by engine
}

func main() {
	rounds := flag.Int("rounds", 5, "samples of each")
	flag.Parse()
	if err := measure(*rounds); err != nil {
		fmt.Fprintln(os.Stderr, "kernels:", err)
		os.Exit(1)
	}
}

func measure(rounds int) error {
	code, err := os.ReadFile("../../pkg/fuel/testdata/kernels.wasm")
	if err != nil {
		return fmt.Errorf("%w (run it in test/oracle)", err)
	}
	var engines []engine
	for _, make := range []func([]byte, bool) (engine, error){onWasmtime, onWazero} {
		for _, metered := range []bool{false, true} {
			e, err := make(code, metered)
			if err != nil {
				return err
			}
			engines = append(engines, e)
		}
	}
	var out []result
	for _, k := range kernels {
		r := result{k.name, map[string][]float64{}}
		for round := range rounds + 1 {
			var first int32
			for i, e := range engines {
				began := time.Now()
				v, err := e.run(k.name, k.arg)
				took := time.Since(began)
				if err != nil {
					return fmt.Errorf("%s on %s: %w", k.name, e.name, err)
				}
				if i == 0 {
					first = v
				} else if v != first {
					return fmt.Errorf("%s on %s is %d, not %d", k.name, e.name, v, first)
				}
				if round > 0 { // the first warms up
					r.Millis[e.name] = append(r.Millis[e.name], float64(took.Microseconds())/1000)
				}
			}
		}
		out = append(out, r)
	}
	return json.NewEncoder(os.Stdout).Encode(out)
}

func onWasmtime(code []byte, metered bool) (engine, error) {
	e := engine{name: "wasmtime"}
	cfg := wasmtime.NewConfig()
	if metered {
		e.name += ", fuel"
		cfg.SetConsumeFuel(true)
	}
	eng := wasmtime.NewEngineWithConfig(cfg)
	store := wasmtime.NewStore(eng)
	if metered {
		if err := store.SetFuel(budget); err != nil {
			return e, err
		}
	}
	module, err := wasmtime.NewModule(eng, code)
	if err != nil {
		return e, err
	}
	instance, err := wasmtime.NewLinker(eng).Instantiate(store, module)
	if err != nil {
		return e, err
	}
	e.run = func(name string, arg int32) (int32, error) {
		v, err := instance.GetFunc(store, name).Call(store, arg)
		if err != nil {
			return 0, err
		}
		n, ok := v.(int32)
		if !ok {
			return 0, fmt.Errorf("the result is a %T", v)
		}
		return n, nil
	}
	return e, nil
}

func onWazero(code []byte, metered bool) (engine, error) {
	e := engine{name: "wazero"}
	ctx := context.Background()
	rt := wazero.NewRuntime(ctx)
	if metered {
		e.name += ", fuel"
		m, err := fuel.Instrument(code, fuel.Options{})
		if err != nil {
			return e, err
		}
		code = m.Code
		meter := fuel.NewMeter(budget)
		refill := func(_ context.Context, m api.Module, _ []uint64) {
			g := m.ExportedGlobal(fuel.CounterExport).(api.MutableGlobal)
			v, err := meter.Refill(int64(g.Get()))
			if err != nil {
				panic(err) // ends the call with it
			}
			g.Set(uint64(v))
		}
		if _, err := rt.NewHostModuleBuilder(fuel.RefillModule).NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(refill), nil, nil).Export(fuel.RefillName).Instantiate(ctx); err != nil {
			return e, err
		}
	}
	mod, err := rt.InstantiateWithConfig(ctx, code, wazero.NewModuleConfig().WithStartFunctions())
	if err != nil {
		return e, err
	}
	e.run = func(name string, arg int32) (int32, error) {
		r, err := mod.ExportedFunction(name).Call(ctx, uint64(uint32(arg)))
		if err != nil {
			return 0, err
		}
		return int32(uint32(r[0])), nil
	}
	return e, nil
}
