package main

import (
	"testing"
	"time"

	"peercompute/pkg/control"
)

func TestParseUntil(t *testing.T) {
	at := func(y int, m time.Month, d, h int) time.Time { return time.Date(y, m, d, h, 0, 0, 0, time.Local) }
	for in, want := range map[string]control.Until{
		"never":            {},
		"2026-12-31":       {At: at(2027, 1, 1, 0)}, // the day counts in full
		"2026-12-31T18:00": {At: at(2026, 12, 31, 18)},
		"2026-12-31 18:00": {At: at(2026, 12, 31, 18)},
		"30d":              {For: 720 * time.Hour},
		"2w":               {For: 336 * time.Hour},
		"12h":              {For: 12 * time.Hour},
	} {
		if got, err := parseUntil(in); err != nil || !got.At.Equal(want.At) || got.For != want.For {
			t.Errorf("parseUntil(%q) = %+v, %v, want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "tomorrow", "2026-13-01", "-3d", "0d", "1.5d", "99999d", "d", "-1h", "30 d"} {
		if got, err := parseUntil(in); err == nil {
			t.Errorf("parseUntil(%q) = %+v, want an error", in, got)
		}
	}
	if got := untilText(at(2027, 1, 1, 0)); got != "after 2026-12-31" {
		t.Errorf("a full day is written %q", got)
	}
}

func TestParseFuel(t *testing.T) {
	for in, want := range map[string]uint64{
		"0": 0, "1000": 1000, "100T": 1e14, "1.5g": 1_500_000_000, "10 G": 1e10, "0.5K": 500, "18446P": 18446e15, "1.000000000000001P": 1e15 + 1,
	} {
		if got, err := parseFuel(in); err != nil || got != want {
			t.Errorf("parseFuel(%q) = %d, %v, want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "T", "-1", "1e9", "18447P", "18446.9P", "1..5G", "1Q"} {
		if got, err := parseFuel(in); err == nil {
			t.Errorf("parseFuel(%q) = %d, want an error", in, got)
		}
	}
}

func FuzzParseFuel(f *testing.F) {
	for _, s := range []string{"100T", "1.5G", "18446.9P", "1."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := parseFuel(s); err == nil {
			if again, err := parseFuel(formatFuel(n)); err != nil || n >= 1000 && (float64(again) < 0.9*float64(n) || float64(again) > 1.1*float64(n)) {
				t.Errorf("%q is %d, written %q, read %d, %v", s, n, formatFuel(n), again, err)
			}
		}
	})
}

func FuzzParseUntil(f *testing.F) {
	for _, s := range []string{"2026-12-31", "30d", "never", "1h"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if u, err := parseUntil(s); err == nil && u.For < 0 {
			t.Errorf("%q is %+v", s, u)
		}
	})
}
