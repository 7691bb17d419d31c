package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

const sizeForms = "sizes look like 512M, 1G, 1.5GiB or 65536 (bytes); 1K is 1024"

// parseSize reads an amount of bytes. Units are binary: K, KB and KiB all mean 1024.
func parseSize(s string) (int64, error) {
	bad := errors.New(sizeForms)
	text := strings.TrimSpace(s)
	digits := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
	shift, ok := sizeShift(strings.ToLower(strings.TrimSpace(text[len(digits):])))
	if !ok {
		return 0, bad
	}
	whole, fraction, dotted := strings.Cut(digits, ".")
	if !allDigits(whole) || dotted && !allDigits(fraction) {
		return 0, bad
	}
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || n > math.MaxInt64>>shift {
		return 0, errors.New("that is more than any machine has")
	}
	n <<= shift
	if dotted {
		// The fraction is under one unit, so a float holds its bytes closely enough.
		part, err := strconv.ParseFloat("0."+fraction, 64)
		if err != nil {
			return 0, bad
		}
		extra := int64(part * float64(int64(1)<<shift))
		if n > math.MaxInt64-extra {
			return 0, errors.New("that is more than any machine has")
		}
		n += extra
	}
	return n, nil
}

func sizeShift(unit string) (shift uint, ok bool) {
	if unit == "" || unit == "b" {
		return 0, true
	}
	prefix := strings.TrimSuffix(strings.TrimSuffix(unit, "b"), "i")
	if unit == prefix+"i" { // "Mi" is how some tools say MiB
		unit += "b"
	}
	if unit != prefix && unit != prefix+"b" && unit != prefix+"ib" {
		return 0, false
	}
	i := strings.Index("kmgtp", prefix)
	if len(prefix) != 1 || i < 0 {
		return 0, false
	}
	return uint(i+1) * 10, true
}

func allDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// formatSize writes bytes for people, in the largest unit that keeps it short.
func formatSize(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n)/1024, 0
	for v >= 1024 && i < len(units)-1 {
		v /= 1024
		i++
	}
	return trimZero(v) + " " + units[i:i+1] + "iB"
}

func trimZero(v float64) string {
	return strings.TrimSuffix(strconv.FormatFloat(v, 'f', 1, 64), ".0")
}

// parseCPUs reads a number of cores as thousandths of one.
func parseCPUs(s string) (int64, error) {
	bad := errors.New("cores look like 2, 0.5 or 500m (thousandths)")
	text := strings.TrimSpace(s)
	milli, thousandths := strings.CutSuffix(text, "m")
	if thousandths {
		n, err := strconv.ParseInt(milli, 10, 32)
		if err != nil || !allDigits(milli) {
			return 0, bad
		}
		return n, nil
	}
	whole, fraction, dotted := strings.Cut(text, ".")
	if !allDigits(whole) || dotted && !allDigits(fraction) {
		return 0, bad
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || v > 1e6 {
		return 0, bad
	}
	n := int64(math.Round(v * 1000))
	if n == 0 && strings.Trim(text, "0.") != "" {
		return 0, errors.New("the least is 0.001 of a core")
	}
	return n, nil
}

func formatCPUs(milli int64) string {
	return strconv.FormatFloat(float64(milli)/1000, 'f', -1, 64)
}

// parseRate reads a number of requests a minute.
func parseRate(s string) (int, error) {
	bad := errors.New("rates look like 60/min or 2/s")
	number, unit, _ := strings.Cut(strings.TrimSpace(s), "/")
	n, err := strconv.ParseInt(number, 10, 32)
	if err != nil || !allDigits(number) || n > math.MaxInt32/60 {
		return 0, bad
	}
	switch unit {
	case "", "min", "m", "minute":
		return int(n), nil
	case "s", "sec", "second":
		return int(n) * 60, nil
	}
	return 0, bad
}
