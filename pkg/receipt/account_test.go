package receipt

import (
	"math"
	"testing"
)

func TestNet(t *testing.T) {
	for _, tc := range []struct {
		there, here, want uint64
		theirs            bool
	}{
		{0, 0, 0, false},
		{5, 5, 0, false},
		{7, 5, 2, false},
		{5, 7, 2, true},
		{0, math.MaxUint64, math.MaxUint64, true},
		{math.MaxUint64, 1, math.MaxUint64 - 1, false},
	} {
		a := Account{Theirs: Sum{Fuel: tc.there}, Ours: Sum{Fuel: tc.here}}
		if fuel, theirs := a.Net(); fuel != tc.want || theirs != tc.theirs {
			t.Errorf("used %d there, %d here: %d, %v", tc.there, tc.here, fuel, theirs)
		}
	}
}
