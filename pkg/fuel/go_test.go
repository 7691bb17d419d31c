package fuel

import (
	"testing"

	"github.com/tetratelabs/wazero"
)

func TestGoGuestCountsAlike(t *testing.T) {
	code := buildGo(t, "testdata/guest")
	wantOut, want := runCommand(t, wazero.NewRuntimeConfig(), mustInstrument(t, code, Options{Disable: AllOptimisations}))
	t.Logf("%d units\n%s", want, wantOut)
	for _, c := range []struct {
		what   string
		o      Optimisation
		config wazero.RuntimeConfig
	}{
		{"all optimisations", 0, wazero.NewRuntimeConfigCompiler()},
		{"all optimisations, interpreted", 0, wazero.NewRuntimeConfigInterpreter()},
		{"no local counter", LocalCounter, wazero.NewRuntimeConfigCompiler()},
		{"no threading, no unrolling", Threading | Unrolling, wazero.NewRuntimeConfigCompiler()},
	} {
		t.Run(c.what, func(t *testing.T) {
			out, got := runCommand(t, c.config, mustInstrument(t, code, Options{Disable: c.o}))
			if out != wantOut || got != want {
				t.Errorf("used %d units, want %d; wrote %q, want %q", got, want, out, wantOut)
			}
		})
		if testing.Short() {
			break
		}
	}
}
