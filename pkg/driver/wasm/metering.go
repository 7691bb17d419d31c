package wasm

import (
	"context"
	"fmt"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"peercompute/pkg/fuel"
)

// meterKey is the key of an instance's meter in the context of its calls: the
// refill import belongs to all instances of a worker.
type meterKey struct{}

func withMeter(ctx context.Context, m *meter) context.Context {
	return context.WithValue(ctx, meterKey{}, m)
}

// offerRefill makes the import by which metered code asks to go on.
func offerRefill(ctx context.Context, rt wazero.Runtime) error {
	refill := api.GoModuleFunc(func(ctx context.Context, mod api.Module, _ []uint64) {
		m := ctx.Value(meterKey{}).(*meter)
		m.Attach(mod) // the first call may come from a start function
		m.refill()
	})
	_, err := rt.NewHostModuleBuilder(fuel.RefillModule).
		NewFunctionBuilder().WithGoModuleFunction(refill, nil, nil).Export(fuel.RefillName).
		Instantiate(ctx)
	if err != nil {
		return fmt.Errorf("cannot offer the refill import: %w", err)
	}
	return nil
}

// validate checks a guest's own bytes. Metering adds a global that has no name,
// but would have an index if an invalid module were let through.
//
// It takes what fuel.Instrument took: wazero makes room for as many things as a vector
// says it has, so a module of a few bytes could otherwise ask for gigabytes.
func validate(ctx context.Context, code []byte) error {
	// The interpreter, since it validates alike and does not compile.
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter().WithCoreFeatures(features))
	defer rt.Close(ctx)
	if _, err := rt.CompileModule(ctx, withoutCustom(code)); err != nil {
		return invalidModule(err)
	}
	return nil
}

// withoutCustom drops the custom sections, which mean nothing to validity and are read
// by nobody before. The others have been found whole.
func withoutCustom(code []byte) []byte {
	const header = 8
	out := append(make([]byte, 0, len(code)), code[:header]...)
	for r := (dataReader{b: code[header:]}); len(r.b) > 0 && !r.bad; {
		whole := r.b
		id := r.byte()
		r.take(r.uint())
		if id != sectionCustom {
			out = append(out, whole[:len(whole)-len(r.b)]...)
		}
	}
	return out
}
