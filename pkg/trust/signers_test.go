package trust

import (
	"slices"
	"testing"
)

// A grant names few keys that sign, and each can be read.
func TestSignersAreBounded(t *testing.T) {
	const key = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEuM6emtPIE0w4qYzsnXEY43QjSRokff5tD0VAOQZ/4eUFx2vFc08wG+I8Q5I2JjrN926mbIIFbY/R+g/l1S21GA=="
	for _, c := range []struct {
		keys []string
		want int // problems
	}{
		{nil, 0},
		{slices.Repeat([]string{key}, maxSigners), 0},
		{slices.Repeat([]string{key}, maxSigners+1), 1},
		{[]string{"?"}, 1},
		{[]string{key + "\n"}, 1},
	} {
		q := DefaultQuota()
		q.SignedBy = c.keys
		if bad := q.problems(); len(bad) != c.want {
			t.Errorf("%d keys: %q, want %d problems", len(c.keys), bad, c.want)
		}
	}
}
