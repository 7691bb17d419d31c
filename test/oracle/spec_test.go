package oracle

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/bytecodealliance/wasmtime-go/v39"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"peercompute/pkg/fuel"
)

// Each action of the WebAssembly specification's tests (as wazero's module
// ships them) has to cost the same on both sides, where wasmtime keeps count:
// not at traps, and only in modules that import nothing.

type specValue struct {
	Type  string          `json:"type"`
	Value json.RawMessage `json:"value"`
}

type specFile struct {
	Commands []struct {
		Type     string `json:"type"`
		Line     int    `json:"line"`
		Filename string `json:"filename"`
		Action   struct {
			Type   string      `json:"type"`
			Field  string      `json:"field"`
			Module string      `json:"module"`
			Args   []specValue `json:"args"`
		} `json:"action"`
	} `json:"commands"`
}

// both is an argument in the form that each runtime wants; ok is false for
// vectors and references.
func (v specValue) both() (native any, word uint64, ok bool) {
	var s string
	if json.Unmarshal(v.Value, &s) != nil || strings.HasPrefix(s, "nan") {
		return nil, 0, false
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return nil, 0, false
	}
	switch v.Type {
	case "i32":
		return int32(n), n, true
	case "i64":
		return int64(n), n, true
	case "f32":
		return math.Float32frombits(uint32(n)), n, true
	case "f64":
		return math.Float64frombits(n), n, true
	}
	return nil, 0, false
}

// vector is the type of v128 values, which wasmtime's Go binding cannot return.
const vector api.ValueType = 0x7b

// pair is one module instantiated on both runtimes.
type pair struct {
	store    *wasmtime.Store
	instance *wasmtime.Instance
	rt       wazero.Runtime
	mod      api.Module
	meter    *fuel.Meter
}

func (p *pair) close() {
	p.rt.Close(context.Background())
	p.store.Close()
}

func (p *pair) used(t *testing.T) (wasmtime, ours uint64) {
	left, err := p.store.GetFuel()
	if err != nil {
		t.Fatal(err)
	}
	return budget - left, p.meter.Used(int64(p.mod.ExportedGlobal(fuel.CounterExport).Get()))
}

// newPair returns nil if wasmtime cannot instantiate the module on its own.
func newPair(t *testing.T, engine *wasmtime.Engine, code []byte) *pair {
	module, err := wasmtime.NewModule(engine, code)
	if err != nil || len(module.Imports()) > 0 {
		return nil
	}
	p := &pair{store: wasmtime.NewStore(engine), meter: fuel.NewMeter(budget)}
	if err := p.store.SetFuel(budget); err != nil {
		t.Fatal(err)
	}
	if p.instance, err = wasmtime.NewInstance(p.store, module, nil); err != nil {
		return nil
	}
	m, err := fuel.Instrument(code, fuel.Options{Parity: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	p.rt = wazero.NewRuntime(ctx)
	_, err = p.rt.NewHostModuleBuilder(fuel.RefillModule).NewFunctionBuilder().WithGoModuleFunction(
		api.GoModuleFunc(func(_ context.Context, m api.Module, _ []uint64) {
			g := m.ExportedGlobal(fuel.CounterExport).(api.MutableGlobal)
			v, err := p.meter.Refill(int64(g.Get()))
			if err != nil {
				panic(err)
			}
			g.Set(uint64(v))
		}), nil, nil).Export(fuel.RefillName).Instantiate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if p.mod, err = p.rt.Instantiate(ctx, m.Code); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestSpecificationChargesWhatWasmtimeCharges(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/tetratelabs/wazero").Output()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), "internal/integration_test/spectest/v2/testdata/*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no specification tests: %v", err)
	}
	cfg := wasmtime.NewConfig()
	cfg.SetConsumeFuel(true)
	engine := wasmtime.NewEngineWithConfig(cfg)
	modules, compared := 0, 0
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".json"), func(t *testing.T) {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			var file specFile
			if err := json.Unmarshal(text, &file); err != nil {
				t.Fatal(err)
			}
			var p *pair
			defer func() {
				if p != nil {
					p.close()
				}
			}()
			for _, c := range file.Commands {
				switch c.Type {
				case "module":
					if p != nil {
						p.close()
					}
					code, err := os.ReadFile(filepath.Join(filepath.Dir(name), c.Filename))
					if err != nil {
						t.Fatal(err)
					}
					if p = newPair(t, engine, code); p == nil {
						continue
					}
					modules++
					if w, o := p.used(t); w != o {
						t.Errorf("line %d: instantiation: %d units, wasmtime %d", c.Line, o, w)
					}
				case "assert_return", "action":
					if p == nil || c.Action.Type != "invoke" || c.Action.Module != "" {
						continue
					}
					natives, words := make([]any, 0, 4), make([]uint64, 0, 4)
					usable := true
					for _, a := range c.Action.Args {
						n, w, ok := a.both()
						usable = usable && ok
						natives, words = append(natives, n), append(words, w)
					}
					f, g := p.instance.GetFunc(p.store, c.Action.Field), p.mod.ExportedFunction(c.Action.Field)
					if !usable || f == nil || g == nil || slices.Contains(g.Definition().ResultTypes(), vector) {
						continue
					}
					w0, o0 := p.used(t)
					_, err := f.Call(p.store, natives...)
					_, err2 := g.Call(context.Background(), words...)
					if (err != nil) != (err2 != nil) {
						t.Fatalf("line %d: %v; on wasmtime: %v", c.Line, err2, err)
					}
					if err != nil {
						continue // an action before it was left out
					}
					w1, o1 := p.used(t)
					if w1-w0 != o1-o0 {
						t.Errorf("line %d: %s%v: %d units, wasmtime %d", c.Line, c.Action.Field, words, o1-o0, w1-w0)
					}
					compared++
				}
			}
		})
	}
	t.Logf("%d modules, %d calls", modules, compared)
	if compared < 10_000 {
		t.Errorf("only %d calls were compared", compared)
	}
}
