package wasm

import (
	"context"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

type metering struct{}

type meterKey struct{}

func withMeter(ctx context.Context, m *meter) context.Context {
	return context.WithValue(ctx, meterKey{}, m)
}

func offerRefill(context.Context, wazero.Runtime) error { return nil }
func isRefill(from, name string) bool                   { return false }
func instrument(_ context.Context, code []byte) ([]byte, metering, error) {
	return code, metering{}, nil
}
func (metering) arm(api.Module, *meter)    {}
func (metering) settle(api.Module, *meter) {}
func (metering) burnt(m *meter) uint64     { return 0 }
