package lend

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"peercompute/pkg/mesh"
)

// The words of a schedule that are no windows.
const (
	Always = "always"
	Idle   = "idle"
)

// Schedule says when a machine is lent: always, while it is idle, or within weekly
// windows of local time; of several it is open if one is. The zero value is never
// open.
type Schedule struct {
	text         string
	always, idle bool
	windows      []window
}

// window is open from a minute of the day until another, on the days on which it
// begins. One that ends at or before its beginning ends on the next day.
type window struct {
	days     [7]bool // by time.Weekday
	from, to int     // minutes since midnight; to may be 24:00
}

const (
	maxSchedule = 512 // characters
	dayMinutes  = 24 * 60
)

var dayNames = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

const scheduleForms = "always, idle, or windows of local time with commas, such as 22:00-07:00 or mon-fri 22:00-07:00,sat,sun 00:00-24:00"

// ParseSchedule reads "always", "idle", windows, or several of them with commas.
// Days stand before the times of a window: mon-fri, or sat,sun.
func ParseSchedule(s string) (Schedule, error) {
	bad := func(format string, args ...any) (Schedule, error) {
		return Schedule{}, mesh.Errorf(mesh.Invalid, "the schedule %q is not understood: "+format, append([]any{clip(s)}, args...)...).
			WithHint("a schedule is %s", scheduleForms)
	}
	if len(s) > maxSchedule {
		return bad("it is over %d characters", maxSchedule)
	}
	var out Schedule
	var texts []string
	var days [7]bool // named so far for the next window
	var named []string
	for part := range strings.SplitSeq(strings.ToLower(s), ",") {
		words := strings.Fields(part)
		switch {
		case len(words) == 1 && words[0] == Always && len(named) == 0:
			out.always = true
			texts = append(texts, Always)
			continue
		case len(words) == 1 && words[0] == Idle && len(named) == 0:
			out.idle = true
			texts = append(texts, Idle)
			continue
		case len(words) == 0 || len(words) > 2:
			return bad("%q is no window", clip(strings.TrimSpace(part)))
		}
		times := words[len(words)-1]
		if !strings.Contains(times, ":") {
			times = ""
		} else {
			words = words[:len(words)-1]
		}
		for _, w := range words {
			if err := addDays(&days, w); err != nil {
				return bad("%s", err)
			}
			named = append(named, w)
		}
		if times == "" {
			continue // its times follow behind more days
		}
		w, err := parseTimes(times)
		if err != nil {
			return bad("%s", err)
		}
		if w.days = days; len(named) == 0 {
			w.days = [7]bool{true, true, true, true, true, true, true}
		}
		out.windows = append(out.windows, w)
		texts = append(texts, strings.TrimSpace(strings.Join(named, ",")+" "+times))
		days, named = [7]bool{}, nil
	}
	if len(named) > 0 {
		return bad("%s has no times", strings.Join(named, ","))
	}
	out.text = strings.Join(texts, ", ")
	return out, nil
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}

func addDays(days *[7]bool, word string) error {
	from, to, ranged := strings.Cut(word, "-")
	if !ranged {
		to = from
	}
	a, b := slices.Index(dayNames, from), slices.Index(dayNames, to)
	if a < 0 || b < 0 {
		return fmt.Errorf("%q is no day: they are mon, tue, wed, thu, fri, sat, sun", clip(word))
	}
	for d := a; ; d = (d + 1) % 7 {
		days[d] = true
		if d == b {
			return nil
		}
	}
}

func parseTimes(s string) (w window, err error) {
	from, to, ok := strings.Cut(s, "-")
	if !ok {
		return w, fmt.Errorf("%q is not HH:MM-HH:MM", clip(s))
	}
	if w.from, err = parseMinute(from); err == nil {
		w.to, err = parseMinute(to)
	}
	if err != nil {
		return w, err
	}
	if w.from == w.to || w.from == dayMinutes {
		return w, fmt.Errorf("%q is no time at all; the whole day is 00:00-24:00", clip(s))
	}
	return w, nil
}

func parseMinute(s string) (int, error) {
	bad := fmt.Errorf("%q is not a time of day, HH:MM", clip(s))
	h, m, ok := strings.Cut(s, ":")
	if !ok || len(h) == 0 || len(h) > 2 || len(m) != 2 || strings.Trim(h+m, "0123456789") != "" {
		return 0, bad
	}
	hours, _ := strconv.Atoi(h) // digits, two at most
	minutes, _ := strconv.Atoi(m)
	if n := hours*60 + minutes; minutes < 60 && n <= dayMinutes {
		return n, nil
	}
	return 0, bad
}

// String is the schedule as it was given, tidied.
func (s Schedule) String() string { return s.text }

// AsksIdle reports whether it matters if the machine is idle.
func (s Schedule) AsksIdle() bool { return s.idle && !s.always }

// span is one window on one day: from and until when.
func (w window) span(y int, m time.Month, d int, loc *time.Location) (from, to time.Time) {
	from = time.Date(y, m, d, 0, w.from, 0, 0, loc)
	if w.to <= w.from {
		d++
	}
	return from, time.Date(y, m, d, 0, w.to, 0, 0, loc)
}

// inWindow reports whether a window is open at t.
func (s Schedule) inWindow(t time.Time) bool {
	y, m, d := t.Date()
	for _, w := range s.windows {
		for _, back := range []int{0, 1} { // one that began yesterday may still be open
			day := time.Date(y, m, d-back, 12, 0, 0, 0, t.Location())
			if !w.days[day.Weekday()] {
				continue
			}
			if from, to := w.span(y, m, d-back, t.Location()); !t.Before(from) && t.Before(to) {
				return true
			}
		}
	}
	return false
}

// turns is when the windows next open or close after t; zero = never.
func (s Schedule) turns(t time.Time) time.Time {
	y, m, d := t.Date()
	var edges []time.Time
	for _, w := range s.windows {
		for ahead := -1; ahead <= 8; ahead++ {
			if w.days[time.Date(y, m, d+ahead, 12, 0, 0, 0, t.Location()).Weekday()] {
				from, to := w.span(y, m, d+ahead, t.Location())
				edges = append(edges, from, to)
			}
		}
	}
	slices.SortFunc(edges, time.Time.Compare)
	open := s.inWindow(t)
	for _, at := range edges {
		if at.After(t) && s.inWindow(at) != open {
			return at
		}
	}
	return time.Time{}
}

// at is whether the schedule is open at now.
func (s Schedule) at(now time.Time, idle bool) State {
	if s.always {
		return State{Open: true}
	}
	if s.inWindow(now) {
		st := State{Open: true}
		if !s.idle {
			st.Closes = s.turns(now)
		}
		return st
	}
	if s.idle && idle {
		return State{Open: true}
	}
	st := State{Opens: s.turns(now)}
	switch {
	case !st.Opens.IsZero() && s.idle:
		st.Reason = "lends while it is idle, or from " + clock(st.Opens, now)
	case !st.Opens.IsZero():
		st.Reason = "lends from " + clock(st.Opens, now)
	case s.idle:
		st.Reason = "lends while it is idle"
	default:
		st.Reason = "lends nothing"
	}
	return st
}

// Turns is when the state may next change by the clock alone; zero = never.
func (p Policy) Turns(now time.Time, b *Break) time.Time {
	next := time.Time{}
	if !p.When.always {
		next = p.When.turns(now)
	}
	if b.InForce(now) && !b.Until.IsZero() && (next.IsZero() || b.Until.Before(next)) {
		next = b.Until
	}
	return next
}
