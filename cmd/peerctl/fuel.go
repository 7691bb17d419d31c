package main

import (
	"errors"
	"math"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// parseFuel reads an amount of fuel. Units are decimal: 10G is 10,000,000,000.
func parseFuel(s string) (uint64, error) {
	bad := errors.New("fuel looks like 500M, 10G, 1.5T or 10000000000")
	digits := strings.TrimRight(s, "kKmMgGtT")
	unit, ok := map[string]uint64{"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}[strings.ToLower(s[len(digits):])]
	if !ok || digits == "" {
		return 0, bad
	}
	whole, fraction, dotted := strings.Cut(digits, ".")
	if !allDigits(whole) || dotted && !allDigits(fraction) {
		return 0, bad
	}
	n, err := strconv.ParseUint(whole, 10, 64)
	if err != nil || n > math.MaxInt64/unit {
		return 0, errors.New("that is more fuel than can be counted")
	}
	n *= unit
	if dotted {
		// Digit by digit, since what is paid for should be exact.
		part := unit
		for _, c := range fraction {
			part /= 10
			n += uint64(c-'0') * part
		}
	}
	if n == 0 {
		return 0, errors.New("with no fuel nothing runs")
	}
	return n, nil
}

func fuelVar(flags *pflag.FlagSet, to *uint64, name, usage string) {
	flags.Var(&value[uint64]{to: to, parse: parseFuel, kind: "FUEL"}, name, usage)
}

// formatFuel writes fuel for people, in the largest unit that keeps it short.
func formatFuel(n uint64) string {
	for _, u := range []struct {
		name string
		unit uint64
	}{{"T", 1e12}, {"G", 1e9}, {"M", 1e6}, {"K", 1e3}} {
		if n >= u.unit {
			return trimZero(float64(n)/float64(u.unit)) + u.name
		}
	}
	return strconv.FormatUint(n, 10)
}
