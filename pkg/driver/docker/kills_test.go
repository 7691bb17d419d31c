package docker

import (
	"testing"
	"time"
)

func TestKills(t *testing.T) {
	at := func(s float64) time.Time { return time.Unix(1000, 0).Add(time.Duration(s * float64(time.Second))) }
	for _, c := range []struct {
		name  string
		at    []float64 // seconds
		holds int       // at which of them it is held; -1 = never
		over  float64   // when there is nothing more to know of it
	}{
		{"one", []float64{0}, -1, 10.1},
		{"few, far apart", []float64{0, 6, 12, 18, 24}, -1, 34.1},
		{"three at once", []float64{0, 0.1, 0.2}, 2, 30.3},
		{"three at once after a while", []float64{0, 20, 21, 22}, 3, 52.1},
		{"goes on while it is held", []float64{0, 1, 2, 20, 40}, 2, 70.1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var k kills
			for i, s := range c.at {
				if hold := k.killed(at(s)); hold != (i == c.holds) {
					t.Errorf("after the one at %gs: held %t", s, hold)
				}
				if len(k.at) > killsHold {
					t.Errorf("%d are remembered", len(k.at))
				}
			}
			if k.over(at(c.over - 0.2)) {
				t.Errorf("forgotten at %gs", c.over-0.2)
			}
			if !k.over(at(c.over)) {
				t.Errorf("still known at %gs", c.over)
			}
		})
	}
}
