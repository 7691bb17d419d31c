package fuel

import (
	"context"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"

	"peercompute/pkg/fuel/fueltest"
	"peercompute/pkg/mesh"
)

// outcome is what can be seen of one run.
type outcome struct {
	results []uint64
	fault   string
	memory  [32]byte
	looks   []uint64 // fuel at each host call
	used    uint64   // at the end
}

// execute runs the entry of a generated module.
func execute(t *testing.T, code []byte, config wazero.RuntimeConfig, metered bool, budget uint64) outcome {
	t.Helper()
	h := newHost(t, config, budget)
	defer h.rt.Close(context.Background())
	h.plain = !metered
	if err := h.load(code, wazero.NewModuleConfig()); err != nil {
		t.Fatalf("%v\n%x", err, code)
	}
	var o outcome
	r, err := h.mod.ExportedFunction(fueltest.Entry).Call(context.Background(), 9)
	o.results = slices.Clone(r)
	if err != nil {
		o.fault, _, _ = strings.Cut(err.Error(), "\n")
	}
	o.looks = h.seen
	memory, _ := h.mod.Memory().Read(0, h.mod.Memory().Size())
	o.memory = sha256.Sum256(memory)
	if metered {
		o.used = h.used()
		if err := h.meter.Exceeded(int64(counterOf(h.mod).Get())); err != nil {
			o.fault = mesh.AsError(err).Kind.String()
			o.used = h.used()
		}
	}
	return o
}

func (o outcome) outOfFuel() bool { return o.fault == mesh.OutOfFuel.String() }

func (o outcome) overflow() bool { return strings.Contains(o.fault, "stack overflow") }

// checkGenerated compares one generated module, plain and metered, under the
// compiler and the interpreter, with all optimisations and without.
func checkGenerated(t *testing.T, data []byte, budget uint64) {
	t.Helper()
	code := fueltest.Generate(data)
	compiler, interpreter := wazero.NewRuntimeConfigCompiler(), wazero.NewRuntimeConfigInterpreter()
	best := mustInstrument(t, code, Options{})
	got := execute(t, best, compiler, true, budget)
	if again := execute(t, best, interpreter, true, budget); !same(got, again, true) {
		t.Fatalf("compiler %+v\ninterpreter %+v\n%x", got, again, code)
	}
	for _, off := range without() {
		other := execute(t, mustInstrument(t, code, Options{Disable: off}), interpreter, true, budget)
		if !same(got, other, false) {
			t.Fatalf("all optimisations %+v\nwithout %#x %+v\n%x", got, off, other, code)
		}
	}
	if got.outOfFuel() || got.overflow() {
		return // the plain module might never end
	}
	// The same work, unmetered: the schedule bounds it, so it ends.
	plain := execute(t, code, compiler, false, budget)
	if !slices.Equal(got.results, plain.results) || got.fault != plain.fault || got.memory != plain.memory || len(got.looks) != len(plain.looks) {
		t.Fatalf("metered %+v\nplain %+v\n%x", got, plain, code)
	}
}

// same compares two metered runs. What is left unpaid at a trap depends on the
// optimisations, and so does how far past its budget memory was written.
func same(a, b outcome, sameCode bool) bool {
	if a.overflow() || b.overflow() {
		return true // engines and frame sizes differ in how deep a stack goes
	}
	if a.fault != b.fault || !slices.Equal(a.looks, b.looks) {
		return false
	}
	if a.fault == "" {
		return a.used == b.used && a.memory == b.memory && slices.Equal(a.results, b.results)
	}
	return !sameCode || a.used == b.used && a.memory == b.memory
}

func TestGeneratedModules(t *testing.T) {
	n := 150
	if testing.Short() {
		n = 25
	}
	for seed := range n {
		r := rand.New(rand.NewPCG(uint64(seed), 7))
		data := make([]byte, 200+r.IntN(1200))
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		checkGenerated(t, data, 1<<uint(8+r.IntN(12)))
	}
}

func FuzzGenerated(f *testing.F) {
	f.Add([]byte("seed"), uint32(1000))
	f.Fuzz(func(t *testing.T, data []byte, budget uint32) { checkGenerated(t, data, uint64(budget)%(1<<18)) })
}

// promisesMuch reports whether a module announces more entries than it has
// bytes. wazero would allocate room for all of them before it looks: up to
// terabytes, which ends the process.
func promisesMuch(code []byte) bool {
	m := &module{src: code}
	if len(code) < 8 || m.findSections() != nil {
		return true
	}
	for id := secType; id <= secData; id++ {
		if r := m.section(id); id != secStart && int64(r.u32()) > int64(len(r.b)) {
			return true
		}
	}
	// Inside of these there are vectors again.
	if _, err := m.copyElements(nil, keep); err != nil && m.has[secElement] {
		return true
	}
	if m.decodeTypes() != nil {
		return true
	}
	r := m.section(secCode)
	for range r.u32() {
		body := reader{b: r.take(r.u32())}
		total := 0
		for range body.count(2) {
			total += int(body.u32())
			body.byte()
		}
		if r.bad || body.bad || total > MaxLocals {
			return true
		}
	}
	return false
}

// FuzzInstrument: whatever the bytes, Instrument returns; and what wazero
// compiles, it compiles metered as well.
func FuzzInstrument(f *testing.F) {
	f.Add([]byte("\x00asm\x01\x00\x00\x00"))
	f.Add([]byte("\x00asm\x0d\x00\x01\x00"))
	f.Add(fueltest.Generate([]byte("a longer seed, for more of the generator's cases")))
	if code, err := os.ReadFile("testdata/kernels.wasm"); err == nil {
		f.Add(code)
	}
	ctx := context.Background()
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	f.Cleanup(func() { rt.Close(ctx) })
	f.Fuzz(func(t *testing.T, code []byte) {
		m, err := Instrument(code, Options{})
		if err != nil {
			var e *mesh.Error
			if !errors.As(err, &e) || e.Kind != mesh.Invalid && e.Kind != mesh.Unsupported && e.Kind != mesh.TooLarge {
				t.Fatalf("not one of our errors: %v", err)
			}
		}
		if err != nil && promisesMuch(code) {
			return
		}
		original, wazeroErr := rt.CompileModule(ctx, code)
		if wazeroErr != nil {
			return
		}
		original.Close(ctx)
		if err != nil {
			if mesh.KindOf(err) == mesh.TooLarge || strings.Contains(err.Error(), "reserved") {
				return
			}
			t.Fatalf("wazero takes it, Instrument does not: %v", err)
		}
		metered, err := rt.CompileModule(ctx, m.Code)
		if err != nil {
			t.Fatalf("the metered module does not compile: %v", err)
		}
		defer metered.Close(ctx)
		if g := metered.ExportedFunctions(); len(g) != len(original.ExportedFunctions()) {
			t.Fatalf("%d functions are exported, %d before", len(g), len(original.ExportedFunctions()))
		}
	})
}
