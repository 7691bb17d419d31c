package main

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"peercompute/pkg/control"
)

const untilForms = "an end looks like 2026-12-31 (that day counts in full), 2026-12-31T18:00, 30d, 2w, 12h, or never"

// parseUntil reads when something ends. Dates and times are local.
func parseUntil(s string) (control.Until, error) {
	if s == "never" {
		return control.Until{}, nil
	}
	if day, err := time.ParseInLocation(time.DateOnly, s, time.Local); err == nil {
		return control.Until{At: day.AddDate(0, 0, 1)}, nil
	}
	for _, form := range []string{"2006-01-02T15:04", "2006-01-02 15:04", time.RFC3339} {
		if at, err := time.ParseInLocation(form, s, time.Local); err == nil {
			return control.Until{At: at}, nil
		}
	}
	d, err := parseSpan(s)
	if err != nil {
		return control.Until{}, errors.New(untilForms)
	}
	return control.Until{For: d}, nil
}

// parseSpan is parseDuration with days and weeks.
func parseSpan(s string) (time.Duration, error) {
	const most = 100 * 365
	for unit, days := range map[string]int{"d": 1, "w": 7} {
		if number, ok := strings.CutSuffix(s, unit); ok {
			n, err := strconv.ParseUint(number, 10, 16)
			if err != nil || !allDigits(number) || n == 0 || int(n)*days > most {
				return 0, errors.New(untilForms)
			}
			return time.Duration(int(n)*days) * 24 * time.Hour, nil
		}
	}
	return parseDuration(s)
}

// untilText writes the end of a grant; a full day is written as that day.
func untilText(at time.Time) string {
	if at.IsZero() {
		return "never"
	}
	at = at.Local()
	if at.Hour() == 0 && at.Minute() == 0 && at.Second() == 0 {
		return "after " + at.AddDate(0, 0, -1).Format(time.DateOnly)
	}
	return at.Format("2006-01-02 15:04")
}
