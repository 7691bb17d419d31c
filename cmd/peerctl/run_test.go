package main

import (
	"testing"

	"peercompute/pkg/mesh"
)

func TestStatusOf(t *testing.T) {
	for _, c := range []struct {
		exit mesh.Exit
		want int
	}{
		{mesh.Exit{}, 0},
		{mesh.Exit{Code: 7}, 7},
		{mesh.Exit{Code: 256}, 1},  // must not become success
		{mesh.Exit{Code: 257}, 1},  // as the system would cut it
		{mesh.Exit{Code: -1}, 255}, // likewise
		{mesh.Exit{Code: -256}, 1}, // must not become success
		{mesh.Exit{Kind: mesh.Timeout}, 124},
		{mesh.Exit{Kind: mesh.OutOfMemory}, 137},
		{mesh.Exit{Kind: mesh.OutOfFuel}, 152},
		{mesh.Exit{Kind: mesh.Trap}, 134},
		{mesh.Exit{Kind: mesh.Canceled}, 130},
		{mesh.Exit{Kind: mesh.Overloaded}, 1}, // an end that has no status of its own is still no success
		{mesh.Exit{Kind: mesh.OutOfMemory, Code: 9}, 137},
		{mesh.Exit{Kind: mesh.Timeout, Code: 137}, 124}, // why it was ended says more than how
		{mesh.Exit{Kind: mesh.Unavailable, Code: 137}, 137},
	} {
		if got := statusOf(c.exit); got != c.want {
			t.Errorf("statusOf(%+v) = %d, want %d", c.exit, got, c.want)
		}
	}
}
