package main

import (
	"errors"
	"math/bits"
	"strconv"
	"strings"
)

// fuelUnits are decimal: fuel is counted, not addressed.
var fuelUnits = []struct {
	name string
	unit uint64
}{{"P", 1e15}, {"T", 1e12}, {"G", 1e9}, {"M", 1e6}, {"K", 1e3}}

// parseFuel reads units of fuel. K, M, G, T and P are decimal.
func parseFuel(s string) (uint64, error) {
	bad := errors.New("fuel looks like 100T, 1.5G or 1000000 (units); K, M, G, T, P are decimal")
	text, unit := strings.ToUpper(strings.TrimSpace(s)), uint64(1)
	for _, u := range fuelUnits {
		if digits, ok := strings.CutSuffix(text, u.name); ok {
			text, unit = strings.TrimSpace(digits), u.unit
			break
		}
	}
	whole, fraction, dotted := strings.Cut(text, ".")
	if !allDigits(whole) || dotted && (!allDigits(fraction) || len(fraction) > 15) {
		return 0, bad
	}
	n, err := strconv.ParseUint(whole, 10, 64)
	high, low := bits.Mul64(n, unit)
	if err != nil || high > 0 {
		return 0, errors.New("that is more than can be counted")
	}
	for _, digit := range fraction {
		unit /= 10
		more := uint64(digit-'0') * unit
		if low+more < low {
			return 0, errors.New("that is more than can be counted")
		}
		low += more
	}
	return low, nil
}

// formatFuel writes units of fuel for people.
func formatFuel(n uint64) string {
	for _, u := range fuelUnits {
		if n >= u.unit {
			return trimZero(float64(n)/float64(u.unit)) + " " + u.name
		}
	}
	return strconv.FormatUint(n, 10)
}
