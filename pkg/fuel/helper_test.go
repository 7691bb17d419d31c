package fuel

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"
)

// host runs metered modules the way a driver does.
type host struct {
	t     testing.TB
	rt    wazero.Runtime
	meter *Meter
	mod   api.Module
	over  int64    // by how much the budget had been passed when a refill was refused
	plain bool     // the module is not metered
	seen  []uint64 // fuel used at each call of env.look
}

func newHost(t testing.TB, config wazero.RuntimeConfig, budget uint64) *host {
	t.Helper()
	ctx := context.Background()
	h := &host{t: t, rt: wazero.NewRuntimeWithConfig(ctx, config), meter: NewMeter(budget)}
	t.Cleanup(func() { h.rt.Close(ctx) })
	_, err := h.rt.NewHostModuleBuilder(RefillModule).NewFunctionBuilder().
		WithGoModuleFunction(api.GoModuleFunc(func(_ context.Context, m api.Module, _ []uint64) {
			g := counterOf(m)
			v, err := h.meter.Refill(int64(g.Get()))
			if err != nil {
				h.over = h.meter.granted - int64(g.Get()) - h.meter.budget
				panic(err)
			}
			g.Set(uint64(v))
		}), nil, nil).Export(RefillName).Instantiate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.rt.NewHostModuleBuilder("env").NewFunctionBuilder().
		WithGoModuleFunction(api.GoModuleFunc(func(_ context.Context, m api.Module, _ []uint64) {
			if h.plain {
				h.seen = append(h.seen, 0)
				return
			}
			g := counterOf(m)
			if err := h.meter.Exceeded(int64(g.Get())); err != nil {
				panic(err)
			}
			h.seen = append(h.seen, h.meter.Used(int64(g.Get())))
		}), nil, nil).Export("look").Instantiate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func counterOf(m api.Module) api.MutableGlobal {
	return m.ExportedGlobal(CounterExport).(api.MutableGlobal)
}

func (h *host) load(code []byte, c wazero.ModuleConfig) error {
	mod, err := h.rt.InstantiateWithConfig(context.Background(), code, c)
	h.mod = mod
	return err
}

func (h *host) used() uint64 { return h.meter.Used(int64(counterOf(h.mod).Get())) }

func mustInstrument(t testing.TB, code []byte, o Options) []byte {
	t.Helper()
	m, err := Instrument(code, o)
	if err != nil {
		t.Fatal(err)
	}
	return m.Code
}

// buildGo builds a Go program of testdata for wasip1.
func buildGo(t testing.TB, dir string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "guest.wasm")
	cmd := exec.Command("go", "build", "-o", out, ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=-mod=mod", "GOWORK=off")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cannot build the guest: %v\n%s", err, text)
	}
	code, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// runCommand runs a WASI command to its end and returns its output and fuel.
func runCommand(t testing.TB, config wazero.RuntimeConfig, code []byte, args ...string) (string, uint64) {
	t.Helper()
	h := newHost(t, config, 1<<50)
	wasi_snapshot_preview1.MustInstantiate(context.Background(), h.rt)
	var out bytes.Buffer
	c := wazero.NewModuleConfig().WithArgs(append([]string{"guest"}, args...)...).WithStdout(&out).WithStderr(&out).WithStartFunctions()
	if err := h.load(code, c); err != nil {
		t.Fatal(err)
	}
	counter := counterOf(h.mod)
	_, err := h.mod.ExportedFunction("_start").Call(context.Background())
	var exit *sys.ExitError
	if err != nil && !(errors.As(err, &exit) && exit.ExitCode() == 0) {
		t.Fatalf("%v\n%s", err, out.String())
	}
	return out.String(), h.meter.Used(int64(counter.Get()))
}

// without is what tests leave out: all optimisations, and each of them.
func without() []Optimisation {
	all := []Optimisation{AllOptimisations}
	for x := Optimisation(1); x < AllOptimisations; x <<= 1 {
		all = append(all, x)
	}
	return all
}
