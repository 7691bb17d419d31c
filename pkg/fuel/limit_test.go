package fuel

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"

	"peercompute/pkg/mesh"
)

func TestBudgetIsExact(t *testing.T) {
	code, err := os.ReadFile("testdata/cases.wasm")
	if err != nil {
		t.Fatal(err)
	}
	metered := mustInstrument(t, code, Options{})
	for _, c := range []struct {
		name string
		arg  uint64
		cost uint64
	}{{"loop", 1000, 6002}, {"recursive", 100, 904}, {"nested", 500, 17002}, {"memory_fill", 65536, 8197}} {
		for _, budget := range []uint64{0, 1, c.cost / 2, c.cost - 1, c.cost, c.cost + 1} {
			h := newHost(t, wazero.NewRuntimeConfig(), budget)
			if err := h.load(metered, wazero.NewModuleConfig()); err != nil {
				t.Fatal(err)
			}
			_, err := h.mod.ExportedFunction(c.name).Call(context.Background(), c.arg)
			exceeded := h.meter.Exceeded(int64(counterOf(h.mod).Get()))
			if err != nil && exceeded == nil {
				t.Errorf("%s with %d units: %v", c.name, budget, err)
			}
			if want := budget < c.cost; (exceeded != nil) != want {
				t.Errorf("%s with %d units: exceeded: %v, want %v", c.name, budget, exceeded, want)
			}
			if got, want := h.used(), min(budget, c.cost); got != want {
				t.Errorf("%s with %d units: used %d, want %d", c.name, budget, got, want)
			}
		}
	}
}

// TestOverrunIsBounded stops guests in the middle of much code and looks how
// far past their budget they came.
func TestOverrunIsBounded(t *testing.T) {
	repeat := func(n int, b ...byte) []byte { return bytes.Repeat(b, n) }
	var stretches []byte // each hides the test that a long run needs in an arm that is not taken
	for range 30 {
		stretches = append(stretches, opI32Const, 0, opIf, emptyBlock)
		stretches = append(stretches, repeat(9_000, opI32Const, 1, opDrop)...)
		stretches = append(stretches, opEnd)
		stretches = append(stretches, repeat(4_000, opI32Const, 1, opDrop)...)
	}
	for what, body := range map[string][]byte{
		"a loop":            {opLoop, emptyBlock, opBr, 0, opEnd},
		"a long run":        repeat(60_000, opI32Const, 1, opDrop),
		"runs around tests": stretches,
		"recursion":         {opCall, 0},
		"a recursive loop":  {opLoop, emptyBlock, opCall, 0, opBr, 0, opEnd},
		"many blocks":       repeat(20_000, opBlock, emptyBlock, opI32Const, 0, opBrIf, 0, opEnd),
	} {
		for _, off := range []Optimisation{0, AllOptimisations, SunkEntry, LocalCounter} {
			for _, budget := range []uint64{0, 1000, 30_000} {
				h := newHost(t, wazero.NewRuntimeConfigInterpreter(), budget)
				if err := h.load(mustInstrument(t, oneFunc(body...).bytes(), Options{Disable: off}), wazero.NewModuleConfig()); err != nil {
					t.Fatal(err)
				}
				_, err := h.mod.ExportedFunction("f").Call(context.Background())
				if err == nil || !strings.Contains(err.Error(), "fuel") {
					if strings.Contains(what, "recurs") && err != nil && strings.Contains(err.Error(), "stack overflow") {
						continue // the stack ended first
					}
					t.Errorf("%s with %d units, without %#x: %v, want it out of fuel", what, budget, off, err)
					continue
				}
				if h.over <= 0 || h.over > MaxStretch+LeafLimit {
					t.Errorf("%s with %d units, without %#x: stopped %d units late, want at most %d", what, budget, off, h.over, MaxStretch+LeafLimit)
				}
				if h.used() != budget {
					t.Errorf("%s: used %d, want %d", what, h.used(), budget)
				}
			}
		}
	}
}

func TestStartFunctionIsCharged(t *testing.T) {
	// Five operators a round, 500,000 rounds: several slices.
	p := oneFuncOf([]byte{1, 1, typeI32}, append(appendS64([]byte{opI32Const}, 500_000),
		opLocalSet, 0, opLoop, emptyBlock, opLocalGet, 0, opI32Const, 1, 0x6b, opLocalTee, 0, opBrIf, 0, opEnd))
	p.start = []byte{0}
	for _, c := range []struct {
		budget uint64
		fails  bool
	}{{1 << 30, false}, {1000, true}} {
		h := newHost(t, wazero.NewRuntimeConfig(), c.budget)
		err := h.load(mustInstrument(t, p.bytes(), Options{}), wazero.NewModuleConfig())
		if (err != nil) != c.fails {
			t.Fatalf("with %d units: %v", c.budget, err)
		}
		if err == nil {
			before := h.used()
			if _, err := h.mod.ExportedFunction("f").Call(context.Background()); err != nil {
				t.Fatal(err)
			}
			if again := h.used() - before; again != before || before != 2_500_003 {
				t.Errorf("the start function used %d units, the same function later %d", before, again)
			}
		} else if !strings.Contains(err.Error(), "fuel") {
			t.Errorf("with %d units: %v", c.budget, err)
		}
	}
}

// TestStartFunctionThatCallsItself has a start function that also is called
// directly: it takes the counter, but not from the host.
func TestStartFunctionThatCallsItself(t *testing.T) {
	p := oneFunc(opGlobalGet, 0, opI32Const, 1, 0x6b, opGlobalSet, 0, opGlobalGet, 0, opIf, emptyBlock, opCall, 0, opEnd)
	p.globals = []byte{1, typeI32, 1, opI32Const, 5, opEnd}
	p.start = []byte{0}
	const want = 5*(1+6) + 4 // entries and operators, calls
	for _, off := range append(without(), 0) {
		h := newHost(t, wazero.NewRuntimeConfigInterpreter(), 1<<30)
		if err := h.load(mustInstrument(t, p.bytes(), Options{Disable: off}), wazero.NewModuleConfig()); err != nil {
			t.Fatal(err)
		}
		if got := h.used(); got != want {
			t.Errorf("without %#x: used %d, want %d", off, got, want)
		}
	}
}

func TestMeter(t *testing.T) {
	m := NewMeter(2*Slice + 10)
	c, err := m.Refill(-5)
	if err != nil || c != Slice || m.Used(c) != 5 {
		t.Fatalf("first refill: %d, %v, used %d", c, err, m.Used(c))
	}
	if again, err := m.Refill(c); err != nil || again != c {
		t.Errorf("refill of a counter that is not spent: %d, %v, want it unchanged", again, err)
	}
	c, err = m.Charge(c, 100)
	if err != nil || m.Used(c) != 105 {
		t.Errorf("charge: %v, used %d", err, m.Used(c))
	}
	c, err = m.Refill(c - Slice)
	if err != nil || m.Used(c) != Slice+105 {
		t.Errorf("second refill: %v, used %d", err, m.Used(c))
	}
	if c != Slice-95 {
		t.Errorf("second refill grants up to %d, want what is left of the budget, %d", c, Slice-95)
	}
	if err := m.Exceeded(0); err != nil {
		t.Errorf("all of the budget used: %v, want no error", err)
	}
	if _, err := m.Charge(0, 1); mesh.KindOf(err) != mesh.OutOfFuel {
		t.Errorf("a unit too many: %v", err)
	}
	if _, err := m.Refill(c); mesh.KindOf(err) != mesh.OutOfFuel || m.Used(c) != m.Budget() {
		t.Errorf("after the budget was exceeded: %v, used %d", err, m.Used(c))
	}
	huge := NewMeter(1<<64 - 1)
	if c, err := huge.Charge(0, 1<<64-1); mesh.KindOf(err) == mesh.Internal || c < 0 && err == nil {
		t.Errorf("a huge charge: %d, %v", c, err)
	}
	if _, err := NewMeter(0).Refill(-1); mesh.KindOf(err) != mesh.OutOfFuel {
		t.Errorf("no budget: %v", err)
	}
}
