package fuel

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// The WebAssembly specification's own tests, as wazero's module ships them.

type specFile struct {
	Commands []specCommand `json:"commands"`
}

type specCommand struct {
	Type     string `json:"type"`
	Line     int    `json:"line"`
	Name     string `json:"name"`
	Filename string `json:"filename"`
	As       string `json:"as"`
	Action   struct {
		Type   string      `json:"type"`
		Field  string      `json:"field"`
		Module string      `json:"module"`
		Args   []specValue `json:"args"`
	} `json:"action"`
}

type specValue struct {
	Type  string          `json:"type"`
	Lane  string          `json:"lane_type"`
	Value json.RawMessage `json:"value"`
}

// words are the stack slots of an argument.
func (v specValue) words(t *testing.T) []uint64 {
	t.Helper()
	parse := func(s string, bits int) uint64 {
		switch {
		case s == "null":
			return 0
		case strings.HasPrefix(s, "nan"):
			if bits == 32 {
				return 0x7fc00000
			}
			return 0x7ff8 << 48
		case strings.HasPrefix(s, "-"):
			n, err := strconv.ParseInt(s, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return uint64(n) & (1<<(bits-1)<<1 - 1)
		}
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if v.Type == "v128" {
		var lanes []string
		if err := json.Unmarshal(v.Value, &lanes); err != nil {
			t.Fatal(err)
		}
		out, bits := make([]uint64, 2), 128/len(lanes)
		for i, s := range lanes {
			out[i*bits/64] |= parse(s, bits) << (i * bits % 64)
		}
		return out
	}
	var s string
	if err := json.Unmarshal(v.Value, &s); err != nil {
		t.Fatal(err)
	}
	bits := 64
	if strings.HasSuffix(v.Type, "32") {
		bits = 32
	}
	n := parse(s, bits)
	if v.Type == "externref" && s != "null" {
		n++
	}
	return []uint64{n}
}

// specWorld is one runtime with all instances of one specification file.
type specWorld struct {
	*testing.T
	rt     wazero.Runtime
	plain  bool
	o      Options
	meters map[api.Module]*Meter
	named  map[string]api.Module
	last   api.Module
}

func newSpecWorld(t *testing.T, dir string, plain bool, o Options) *specWorld {
	ctx := context.Background()
	w := &specWorld{T: t, plain: plain, o: o, meters: make(map[api.Module]*Meter), named: make(map[string]api.Module)}
	w.rt = wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig())
	t.Cleanup(func() { w.rt.Close(ctx) })
	_, err := w.rt.NewHostModuleBuilder(RefillModule).NewFunctionBuilder().
		WithGoModuleFunction(api.GoModuleFunc(func(_ context.Context, m api.Module, _ []uint64) {
			g := counterOf(m)
			v, err := w.meterOf(m).Refill(int64(g.Get()))
			if err != nil {
				panic(err)
			}
			g.Set(uint64(v))
		}), nil, nil).Export(RefillName).Instantiate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	code, err := os.ReadFile(filepath.Join(dir, "..", "..", "testdata", "spectest.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.rt.InstantiateWithConfig(ctx, code, wazero.NewModuleConfig()); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *specWorld) meterOf(m api.Module) *Meter {
	meter := w.meters[m]
	if meter == nil {
		meter = NewMeter(1 << 50)
		w.meters[m] = meter
	}
	return meter
}

func (w *specWorld) load(code []byte, as string) error {
	if !w.plain {
		m, err := Instrument(code, w.o)
		if err != nil {
			return err
		}
		code = m.Code
	}
	mod, err := w.rt.InstantiateWithConfig(context.Background(), code, wazero.NewModuleConfig().WithName(as))
	if err == nil {
		w.last = mod
	}
	return err
}

// do runs an action; used is the fuel that it took.
func (w *specWorld) do(c specCommand) (results []uint64, used uint64, fault string) {
	m := w.last
	if c.Action.Module != "" {
		m = w.named[c.Action.Module]
	}
	if m == nil {
		return nil, 0, "no module"
	}
	if c.Action.Type == "get" {
		return []uint64{m.ExportedGlobal(c.Action.Field).Get()}, 0, ""
	}
	var args []uint64
	for _, a := range c.Action.Args {
		args = append(args, a.words(w.T)...)
	}
	fuel := func() uint64 {
		if w.plain {
			return 0
		}
		return w.meterOf(m).Used(int64(counterOf(m).Get()))
	}
	f := m.ExportedFunction(c.Action.Field)
	if f == nil {
		return nil, 0, "no function"
	}
	before := fuel()
	results, err := f.Call(context.Background(), args...)
	if err != nil {
		fault, _, _ = strings.Cut(err.Error(), "\n")
		return nil, 0, fault
	}
	results = slices.Clone(results)
	for i, ty := range f.Definition().ResultTypes() {
		if ty == api.ValueTypeExternref || ty == 0x70 {
			results[min(i, len(results)-1)] &= 0 // references differ between runtimes
		}
	}
	return results, fuel() - before, ""
}

func TestSpecificationSuite(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the whole specification suite")
	}
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/tetratelabs/wazero").Output()
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(strings.TrimSpace(string(out)), "internal", "integration_test", "spectest")
	files, err := filepath.Glob(filepath.Join(root, "v2", "testdata", "*.json"))
	if err != nil || len(files) == 0 {
		t.Skipf("wazero's module has no specification tests: %v", err)
	}
	modules, actions := 0, 0
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".json"), func(t *testing.T) {
			m, a := specFileRun(t, name)
			modules += m
			actions += a
		})
	}
	t.Logf("%d modules, %d actions", modules, actions)
	if modules < 1000 || actions < 40_000 {
		t.Errorf("only %d modules and %d actions were run", modules, actions)
	}
}

func specFileRun(t *testing.T, name string) (modules, actions int) {
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var file specFile
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(name)
	worlds := []*specWorld{
		newSpecWorld(t, dir, true, Options{}),
		newSpecWorld(t, dir, false, Options{}),
		newSpecWorld(t, dir, false, Options{Disable: AllOptimisations}),
	}
	for i, c := range file.Commands {
		switch c.Type {
		case "module", "assert_uninstantiable", "assert_unlinkable":
			code, err := os.ReadFile(filepath.Join(dir, c.Filename))
			if err != nil {
				t.Fatal(err)
			}
			as := ""
			if i+1 < len(file.Commands) && file.Commands[i+1].Type == "register" {
				as = file.Commands[i+1].As
			}
			var faults [3]string
			for i, w := range worlds {
				if err := w.load(code, as); err != nil {
					faults[i], _, _ = strings.Cut(err.Error(), "\n")
				}
				if c.Name != "" {
					w.named[c.Name] = w.last
				}
			}
			if (faults[1] == "") != (faults[0] == "") || (faults[2] == "") != (faults[0] == "") {
				t.Errorf("line %d: %s: plain: %q, metered: %q, without optimisations: %q", c.Line, c.Filename, faults[0], faults[1], faults[2])
			}
			modules++
		case "assert_return", "action", "assert_trap", "assert_exhaustion":
			want, _, wantFault := worlds[0].do(c)
			got, used, fault := worlds[1].do(c)
			got2, used2, fault2 := worlds[2].do(c)
			if !slices.Equal(got, want) || !slices.Equal(got2, want) || fault != wantFault || fault2 != wantFault {
				t.Errorf("line %d: %s%v: metered %v %q, without optimisations %v %q, plain %v %q", c.Line, c.Action.Field, c.Action.Args, got, fault, got2, fault2, want, wantFault)
			}
			if used != used2 {
				t.Errorf("line %d: %s: %d units, without optimisations %d", c.Line, c.Action.Field, used, used2)
			}
			actions++
		case "assert_invalid", "assert_malformed":
			if code, err := os.ReadFile(filepath.Join(dir, c.Filename)); err == nil {
				_, _ = Instrument(code, Options{}) // must not panic
			}
		}
	}
	return modules, actions
}
