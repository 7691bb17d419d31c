package main

import "testing"

func TestParseFuel(t *testing.T) {
	for text, want := range map[string]uint64{
		"10G": 10_000_000_000, "1": 1, "500m": 500_000_000, "1.5T": 1_500_000_000_000, "0.001k": 1, "2.25M": 2_250_000,
		"9223372036854775807": 1<<63 - 1,
	} {
		if got, err := parseFuel(text); err != nil || got != want {
			t.Errorf("%s: got %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "G", "0", "0.0G", "-1", "1e9", "1GG", "1 G", "1.G", ".5G", "1Gi", "10P", "9223372036854775808", "99999999999T"} {
		if got, err := parseFuel(text); err == nil {
			t.Errorf("%q is taken for %d", text, got)
		}
	}
}

func TestFormatFuel(t *testing.T) {
	for n, want := range map[uint64]string{0: "0", 999: "999", 1500: "1.5K", 10_000_000_000: "10G", 1_250_000: "1.2M"} {
		if got := formatFuel(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
}
