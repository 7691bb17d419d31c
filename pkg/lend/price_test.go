package lend

import (
	"math"
	"testing"

	"peercompute/pkg/mesh"
)

// A price is a number that amounts can be reckoned with.
func TestPrices(t *testing.T) {
	for _, p := range []float64{-0.01, math.NaN(), math.Inf(1), math.Inf(-1), 2 * maxPrice} {
		for what, s := range map[string]Settings{"fuel": {PriceGFuel: &p}, "seconds": {PriceContainerSecond: &p}} {
			if _, err := s.Policy(); mesh.KindOf(err) != mesh.Invalid {
				t.Errorf("%g for %s: %v", p, what, err)
			}
		}
	}
	fuel, second := 0.02, 0.0
	if p, err := (Settings{PriceGFuel: &fuel, PriceContainerSecond: &second}).Policy(); err != nil || p.PriceGFuel != fuel || p.PriceContainerSecond != 0 {
		t.Errorf("%+v, %v", p, err)
	}
}
