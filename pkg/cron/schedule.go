package cron

import (
	"strings"
	"time"

	"github.com/robfig/cron/v3"

	"peercompute/pkg/mesh"
)

const (
	maxSchedule = 128         // bytes
	leastPeriod = time.Minute // between two runs
)

// Schedule says when something is due.
type Schedule struct{ cron.Schedule }

// ParseSchedule reads the five fields of crontab(5) (minute, hour, day of the month,
// month, day of the week), a word such as @daily, or "@every 90m". The times are
// those of this machine's zone, or of the one that a prefix such as
// "CRON_TZ=Europe/Lisbon " names. What is never due is refused, and so is what would
// be due more than once a minute.
func ParseSchedule(s string) (Schedule, error) {
	refuse := func(why string) (Schedule, error) {
		return Schedule{}, mesh.Errorf(mesh.Invalid, "the schedule %q %s", clip(s), why).
			WithHint(`a schedule is five fields (minute, hour, day of the month, month, day of the week) such as "30 4 * * mon-fri", or @hourly, @daily, @weekly, @monthly, "@every 90m"`)
	}
	if len(s) > maxSchedule {
		return refuse("is too long")
	}
	if strings.Contains(s, "TZ=") && !strings.Contains(strings.TrimSpace(s), " ") {
		return refuse("names a time zone and nothing else")
	}
	parsed, err := cron.ParseStandard(strings.TrimSpace(s))
	if err != nil {
		return refuse("is not understood: " + err.Error())
	}
	first := parsed.Next(time.Now())
	if first.IsZero() {
		return refuse("is never due")
	}
	if parsed.Next(first).Sub(first) < leastPeriod {
		return refuse("is due more than once a minute")
	}
	return Schedule{parsed}, nil
}

func clip(s string) string {
	if len(s) > maxSchedule {
		return s[:maxSchedule] + "…"
	}
	return s
}
