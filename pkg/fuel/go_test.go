package fuel

import (
	"testing"

	"github.com/tetratelabs/wazero"
)

func TestGoGuestCountsAlikeWithEachOptimisation(t *testing.T) {
	code := buildGo(t, "testdata/guest")
	wantOut, want := runCommand(t, wazero.NewRuntimeConfig(), mustInstrument(t, code, Options{Disable: AllOptimisations}))
	t.Logf("%d units\n%s", want, wantOut)
	for name, o := range map[string]Optimisation{
		"all on": 0, "no local counter": LocalCounter, "no double loop": DoubleLoop, "no potentials": Potentials,
		"no static leaves": StaticLeaves, "no sunk entry": SunkEntry, "no threading": Threading, "no unrolling": Unrolling,
	} {
		t.Run(name, func(t *testing.T) {
			out, got := runCommand(t, wazero.NewRuntimeConfig(), mustInstrument(t, code, Options{Disable: o}))
			if out != wantOut || got != want {
				t.Errorf("used %d units, want %d; wrote %q, want %q", got, want, out, wantOut)
			}
		})
	}
}
