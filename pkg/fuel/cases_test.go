package fuel

import (
	"context"
	"os"
	"slices"
	"testing"

	"github.com/tetratelabs/wazero"
)

// TestCases has the counts of testdata/cases.wat, added up by hand: 1 for the
// entry, then the operators as they run.
func TestCases(t *testing.T) {
	code, err := os.ReadFile("testdata/cases.wasm")
	if err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name string
		arg  int64 // -1: none
		want uint64
	}{
		{"empty", -1, 1},
		{"nop", -1, 1},
		{"drop", -1, 2},
		{"return", -1, 2},
		{"block", -1, 2},
		{"br", -1, 3},
		{"br_function", -1, 3},
		{"br_out", -1, 3},
		{"br_if", 0, 4}, // get, br_if, const
		{"br_if", 1, 4},
		{"br_if_value", 0, 5}, // const, get, br_if, const
		{"br_if_value", 1, 4},
		{"br_if_function", 0, 7}, // const, get, br_if, const, const, add
		{"br_if_function", 1, 4},
		{"if", 0, 4}, // get, if, get
		{"if", 1, 6},
		{"if_else", 0, 4},
		{"if_else", 1, 6},
		{"if_params", 0, 5},
		{"if_params", 1, 6},
		{"br_table", 0, 4}, // get, br_table, const
		{"br_table", 1, 6},
		{"br_table", 2, 4},
		{"br_table", 99, 4},
		{"br_table_function", 0, 6}, // const, get, br_table, const, add
		{"br_table_function", 1, 4},
		{"loop", 1, 8}, // 6 a round, get
		{"loop", 10, 62},
		{"loop", 1000, 6002},
		{"loop_once", -1, 1},
		{"loop_params", 1, 7}, // get, then const, sub, tee, get, br_if a round
		{"loop_params", 7, 37},
		{"loop_table", 1, 10}, // 8 a round, get
		{"loop_table", 9, 74},
		{"nested", 1, 36},      // 2 + 9*3 + 5 a round, get
		{"nested", 5, 172},     //
		{"dead", -1, 5},        // const, br, const, add
		{"dead_loop", 1, 4},    // get, br_if, get
		{"dead_loop", 0, 9},    // get, br_if, const, set, br, get, br_if, get
		{"recursive", 0, 4},    // get, if, const
		{"recursive", 1, 13},   // get, if, const, get, const, sub, call, (4), add
		{"recursive", 9, 85},   //
		{"call_leaf", -1, 7},   // const, call, (4)
		{"call_branchy", 0, 9}, // get, call, (get, if, const, const, mul)
		{"call_branchy", 1, 7},
		{"call_host", -1, 4},
		{"call_indirect", 0, 8}, // const, get, call_indirect, (4)
		{"call_indirect", 1, 8},
		{"call_indirect", 2, 17},
		{"own_local", 1, 19}, // get, call, (get; 9 a round), const, get, extend, mul, eq
		{"own_local", 9, 91},
		{"pair", 1, 12}, // get, call, (const, set, const, get, get, br_if), trunc, add
		{"pair", 0, 17}, // and call, const, get, get, add
		{"self", 0, 6},  // get, set, get, if, get
		{"self", 7, 132},
		{"memory_fill", 0, 5}, // const, const, get, fill
		{"memory_fill", 7, 5},
		{"memory_fill", 8, 6},
		{"memory_fill", 65536, 5 + 8192},
		{"memory_copy", 1000, 5 + 125},
		{"memory_init", 16, 5 + 2},
		{"memory_grow", 0, 3},
		{"memory_grow", 1, 3 + 8192},
		{"memory_grow", 65536, 3 + 65536*8192}, // fails
		{"memory_grow", 65537, 3},              // cannot succeed: no surcharge
		{"table_fill", 3, 5 + 3},
		{"table_copy", 4, 5 + 4},
		{"table_init", 2, 5 + 2},
		{"table_grow", 5, 4 + 5},
		{"drops", -1, 3},
		{"vector", -1, 6},
		{"references", -1, 3},
	}
	for _, off := range append(without(), 0) {
		metered := mustInstrument(t, code, Options{Disable: off})
		for _, config := range []wazero.RuntimeConfig{wazero.NewRuntimeConfigCompiler(), wazero.NewRuntimeConfigInterpreter()} {
			h := newHost(t, config, 1<<40)
			compiled, err := h.rt.CompileModule(context.Background(), metered)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range cases {
				h.meter = NewMeter(1 << 40)
				h.mod, err = h.rt.InstantiateModule(context.Background(), compiled, wazero.NewModuleConfig())
				if err != nil {
					t.Fatal(err)
				}
				var args []uint64
				if c.arg >= 0 {
					args = []uint64{uint64(c.arg)}
				}
				if _, err := h.mod.ExportedFunction(c.name).Call(context.Background(), args...); err != nil {
					t.Fatalf("%s(%d): %v", c.name, c.arg, err)
				}
				if got := h.used(); got != c.want {
					t.Errorf("%s(%d) without %#x: %d units, want %d", c.name, c.arg, off, got, c.want)
				}
				h.mod.Close(context.Background())
			}
		}
	}
}

func TestCountIsExactInHostCalls(t *testing.T) {
	code, err := os.ReadFile("testdata/cases.wasm")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		arg  []uint64
		want []uint64
	}{
		{"call_host", nil, []uint64{2, 3, 4}},
		// Entry; get, call, (4), set, call look: 9. Then get, get, call, (get,
		// if, const: 4 with the entry), add, set, get, const, sub, tee, br_if: 14.
		{"loop_calls", []uint64{2}, []uint64{9, 31}},
	} {
		for _, off := range []Optimisation{0, AllOptimisations} {
			h := newHost(t, wazero.NewRuntimeConfig(), 1<<40)
			if err := h.load(mustInstrument(t, code, Options{Disable: off}), wazero.NewModuleConfig()); err != nil {
				t.Fatal(err)
			}
			if _, err := h.mod.ExportedFunction(c.name).Call(context.Background(), c.arg...); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(h.seen, c.want) {
				t.Errorf("%s without %#x: %v units at the host calls, want %v", c.name, off, h.seen, c.want)
			}
		}
	}
}
