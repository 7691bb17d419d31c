package main

import (
	"math"
	"strings"
	"testing"
)

func TestParseSize(t *testing.T) {
	good := map[string]int64{
		"0": 0, "1": 1, "1024": 1024, "7B": 7, "512M": 512 << 20, "512m": 512 << 20, "512MB": 512 << 20, "512Mi": 512 << 20,
		"512MiB": 512 << 20, "1G": 1 << 30, "1.5GiB": 3 << 29, "1.5 GiB": 3 << 29, " 64k ": 64 << 10, "0.5K": 512,
		"2T": 2 << 40, "1P": 1 << 50, "8191P": 8191 << 50, "9223372036854775807": math.MaxInt64, "1.0": 1, "1.9": 1,
	}
	for in, want := range good {
		if got, err := parseSize(in); err != nil || got != want {
			t.Errorf("parseSize(%q) = %d, %v, want %d", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", " ", "M", "1Q", "-1", "+1", "1.M", ".5G", "1..5G", "1,5G", "1e3", "0x10", "1 000", "1GG", "1Bi", "1iB", "1i", "NaN", "Inf",
		"8192P", "9223372036854775808", "99999999999999999999G", "1G1", "1K iB", "١G",
	} {
		if got, err := parseSize(in); err == nil {
			t.Errorf("parseSize(%q) = %d, want an error", in, got)
		}
	}
	if _, err := parseSize("1Q"); err == nil || !strings.Contains(err.Error(), "1.5GiB") {
		t.Errorf("parseSize(1Q): error %v does not say what is accepted", err)
	}
}

// FuzzParseSize checks that whatever is accepted is not negative, and that what
// formatSize writes is read back as nearly the same.
func FuzzParseSize(f *testing.F) {
	for _, s := range []string{"512M", "1.5GiB", "0", "9223372036854775807", "8191.9999999P", "1Q", "1.", "-1G"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := parseSize(s)
		if err != nil {
			return
		}
		if n < 0 {
			t.Fatalf("parseSize(%q) = %d", s, n)
		}
		text := formatSize(n)
		back, err := parseSize(text)
		if strings.HasSuffix(text, "EiB") {
			return // more than any machine has; only shown
		}
		if err != nil || math.Abs(float64(back)-float64(n)) > 0.06*float64(n) {
			t.Fatalf("%q is %d, shown as %q, read back as %d, %v", s, n, text, back, err)
		}
	})
}

func TestFormatSize(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.5 KiB", 256 << 20: "256 MiB", 2 << 30: "2 GiB", math.MaxInt64: "8 EiB",
	} {
		if got := formatSize(n); got != want {
			t.Errorf("formatSize(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestParseCPUs(t *testing.T) {
	for in, want := range map[string]int64{"2": 2000, "0.5": 500, "1.25": 1250, "500m": 500, "0": 0, "0.0": 0, "0.001": 1} {
		if got, err := parseCPUs(in); err != nil || got != want {
			t.Errorf("parseCPUs(%q) = %d, %v, want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "m", "-1", "1.", ".5", "two", "1e3", "0.0001", "1.5m", "99999999", "+1m", "NaN"} {
		if got, err := parseCPUs(in); err == nil {
			t.Errorf("parseCPUs(%q) = %d, want an error", in, got)
		}
	}
	if got := formatCPUs(1500); got != "1.5" {
		t.Errorf("formatCPUs(1500) = %q, want 1.5", got)
	}
}

func TestParseRate(t *testing.T) {
	for in, want := range map[string]int{"60": 60, "60/min": 60, "2/s": 120, "0": 0, "5/minute": 5} {
		if got, err := parseRate(in); err != nil || got != want {
			t.Errorf("parseRate(%q) = %d, %v, want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "lots", "-1/min", "1/h", "1.5/s", "99999999/s", "/min"} {
		if got, err := parseRate(in); err == nil {
			t.Errorf("parseRate(%q) = %d, want an error", in, got)
		}
	}
}
