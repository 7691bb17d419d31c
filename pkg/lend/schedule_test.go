package lend

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"peercompute/pkg/mesh"
)

// 2026-11-25 is a Wednesday.
func at(day, hour, minute int) time.Time {
	return time.Date(2026, 11, day, hour, minute, 0, 0, time.UTC)
}

func schedule(t testing.TB, s string) Schedule {
	t.Helper()
	out, err := ParseSchedule(s)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestSchedule(t *testing.T) {
	for _, c := range []struct {
		schedule string
		now      time.Time
		idle     bool
		open     bool
		turns    time.Time // when it opens or closes
	}{
		{"always", at(25, 12, 0), false, true, time.Time{}},
		{"idle", at(25, 12, 0), false, false, time.Time{}},
		{"idle", at(25, 12, 0), true, true, time.Time{}},
		{"22:00-07:00", at(25, 21, 59), false, false, at(25, 22, 0)},
		{"22:00-07:00", at(25, 22, 0), false, true, at(26, 7, 0)},
		{"22:00-07:00", at(26, 0, 0), false, true, at(26, 7, 0)},
		{"22:00-07:00", at(26, 6, 59), false, true, at(26, 7, 0)},
		{"22:00-07:00", at(26, 7, 0), false, false, at(26, 22, 0)},
		{"09:00-12:00,13:00-17:00", at(25, 12, 30), false, false, at(25, 13, 0)},
		{"09:00-12:00,12:00-17:00", at(25, 10, 0), false, true, at(25, 17, 0)}, // they touch
		{"00:00-24:00", at(25, 10, 0), false, true, time.Time{}},
		{"mon-fri 22:00-07:00", at(28, 6, 0), false, true, at(28, 7, 0)},    // Saturday, begun on Friday
		{"mon-fri 22:00-07:00", at(28, 23, 0), false, false, at(30, 22, 0)}, // Saturday
		{"mon-fri 22:00-07:00", at(30, 6, 0), false, false, at(30, 22, 0)},  // Monday, not begun on Sunday
		{"sat,sun 00:00-24:00", at(27, 12, 0), false, false, at(28, 0, 0)},
		{"sat,sun 00:00-24:00", at(29, 12, 0), false, true, at(30, 0, 0)},
		{"sat-mon 08:00-09:00", at(30, 8, 30), false, true, at(30, 9, 0)},
		{"wed 10:00-11:00", at(25, 11, 0), false, false, at(25, 11, 0).AddDate(0, 0, 7).Add(-time.Hour)},
		{"idle,22:00-07:00", at(25, 12, 0), true, true, time.Time{}},
		{"idle,22:00-07:00", at(25, 12, 0), false, false, at(25, 22, 0)},
		{"mon-fri 22:00-07:00, SAT , Sun 00:00-24:00", at(29, 3, 0), false, true, at(30, 0, 0)},
	} {
		s := schedule(t, c.schedule)
		got := s.at(c.now, c.idle)
		if got.Open != c.open {
			t.Errorf("%q at %s, idle %t: open %t, want %t", c.schedule, c.now, c.idle, got.Open, c.open)
		}
		turns := got.Opens
		if got.Open {
			turns = got.Closes
		}
		if !turns.Equal(c.turns) {
			t.Errorf("%q at %s: turns at %s, want %s", c.schedule, c.now, turns, c.turns)
		}
		if again := schedule(t, s.String()); again.String() != s.String() || again.at(c.now, c.idle) != got {
			t.Errorf("%q is written %q, which means something else", c.schedule, s)
		}
	}
}

func TestScheduleRefuses(t *testing.T) {
	for _, s := range []string{
		"", " ", "sometimes", "22-07", "22:00", "22:00-", "22:00-7", "25:00-07:00", "22:60-07:00", "22:00-22:00", "24:00-07:00",
		"mon", "mon-fri", "noday 22:00-07:00", "mon 22:00-07:00,tue", "22:00-07:00,", "idle 22:00-07:00", "mon,always", "1:2-3:4",
		"-1:00-07:00", "22:00-07:00 mon", "mon tue 22:00-07:00", strings.Repeat("22:00-07:00,", 100),
	} {
		if got, err := ParseSchedule(s); mesh.KindOf(err) != mesh.Invalid {
			t.Errorf("%q is read as %+v, %v", s, got, err)
		}
	}
}

// Where the clock is put forward or back, a window begins and ends by the clock on
// the wall.
func TestScheduleAcrossClockChanges(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip(err)
	}
	s := schedule(t, "22:00-07:00")
	for _, c := range []struct {
		now   time.Time
		hours float64 // until it closes
	}{
		{time.Date(2026, 3, 28, 23, 0, 0, 0, berlin), 7},  // one hour is left out that night
		{time.Date(2026, 10, 24, 23, 0, 0, 0, berlin), 9}, // one comes twice
		{time.Date(2026, 11, 24, 23, 0, 0, 0, berlin), 8},
	} {
		st := s.at(c.now, false)
		if !st.Open || st.Closes.Sub(c.now).Hours() != c.hours || st.Closes.Hour() != 7 {
			t.Errorf("at %s: %+v, want it to close in %g hours", c.now, st, c.hours)
		}
	}
}

// Minute by minute, what turns says is when the windows turn, and no sooner.
func TestTurnsAgreesWithEveryMinute(t *testing.T) {
	zones := []*time.Location{time.UTC, time.FixedZone("far", 14*3600)}
	if berlin, err := time.LoadLocation("Europe/Berlin"); err == nil {
		zones = append(zones, berlin)
	}
	rapid.Check(t, func(t *rapid.T) {
		var windows []string
		for range rapid.IntRange(1, 3).Draw(t, "windows") {
			from := rapid.IntRange(0, dayMinutes/15-1).Draw(t, "from") * 15
			length := rapid.IntRange(1, dayMinutes/15-1).Draw(t, "length") * 15
			to := (from + length) % dayMinutes
			w := fmt.Sprintf("%02d:%02d-%02d:%02d", from/60, from%60, to/60, to%60)
			if rapid.Bool().Draw(t, "days") {
				w = fmt.Sprintf("%s-%s %s", rapid.SampledFrom(dayNames).Draw(t, "first"), rapid.SampledFrom(dayNames).Draw(t, "last"), w)
			}
			windows = append(windows, w)
		}
		s, err := ParseSchedule(strings.Join(windows, ","))
		if err != nil {
			t.Fatal(err)
		}
		zone := rapid.SampledFrom(zones).Draw(t, "zone")
		start := rapid.SampledFrom([]time.Time{
			time.Date(2026, 3, 27, 0, 0, 0, 0, zone), time.Date(2026, 10, 23, 0, 0, 0, 0, zone), time.Date(2026, 12, 30, 0, 0, 0, 0, zone),
		}).Draw(t, "start").Add(time.Duration(rapid.IntRange(0, 3*dayMinutes).Draw(t, "minute")) * time.Minute)
		open, want := s.inWindow(start), time.Time{}
		for m := 1; m <= 8*dayMinutes; m++ {
			if now := start.Add(time.Duration(m) * time.Minute); s.inWindow(now) != open {
				want = now
				break
			}
		}
		if got := s.turns(start); !got.Equal(want) {
			t.Fatalf("%s at %s (open %t): turns at %s, want %s", s, start, open, got, want)
		}
	})
}

func TestBreaks(t *testing.T) {
	now := at(25, 23, 0)
	text := func(s string) *string { return &s }
	for _, c := range []struct {
		name, when, then string
		b                *Break
		want             State
	}{
		{"open", "22:00-07:00", "stop", nil, State{Open: true, Closes: at(26, 7, 0)}},
		{"closed", "mon 22:00-07:00", "pause", nil, State{Reason: "lends from Mon 22:00 UTC", Opens: at(30, 22, 0), Then: Pause}},
		{"no end", "always", "keep", &Break{}, State{Reason: "by its owner, until that is resumed", Then: Keep}},
		{"an end", "always", "keep", &Break{Until: at(26, 1, 0), Then: Stop}, State{Reason: "by its owner, until 01:00 UTC", Opens: at(26, 1, 0), Then: Stop}},
		{"it is closed by the end", "22:00-07:00", "keep", &Break{Until: at(26, 8, 0)}, State{Reason: "by its owner, until 08:00 UTC", Opens: at(26, 22, 0), Then: Keep}},
		{"the stricter counts", "mon 22:00-07:00", "stop", &Break{Until: at(26, 1, 0), Then: Pause}, State{Reason: "by its owner, until 01:00 UTC", Opens: at(30, 22, 0), Then: Stop}},
		{"over", "always", "keep", &Break{Until: at(25, 22, 59)}, State{Open: true}},
	} {
		p, err := Settings{When: text(c.when), Then: text(c.then)}.Policy()
		if err != nil {
			t.Fatal(err)
		}
		if got := p.At(now, c.b, false); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
	if (Policy{}).At(now, nil, true).Open {
		t.Error("a policy of nothing lends")
	}
}

func TestSettings(t *testing.T) {
	n, m, when := 3, int64(5), "idle"
	base := Settings{Workloads: &n, MilliCPU: &m, Memory: &m, Disk: &m, Reserve: &m}
	four := int64(4)
	s := Settings{Memory: &four, When: &when}.Over(base)
	p, err := s.Policy()
	if err != nil || p.Workloads != 3 || p.MilliCPU != 5 || p.Memory != 4 || p.Disk != 5 || p.Reserve != 5 || p.When.String() != "idle" || p.Then != Keep {
		t.Errorf("the policy is %+v, %v", p, err)
	}
	if got := strings.Join((Settings{Memory: &four, When: &when}).Said(), " "); got != "memory when" {
		t.Errorf("said: %q", got)
	}
	bad, minus := "now and then", int64(-1)
	for _, s := range []Settings{{When: &bad}, {Then: &bad}, {Memory: &minus}, {Reserve: &minus}} {
		if _, err := s.Policy(); mesh.KindOf(err) != mesh.Invalid {
			t.Errorf("%v: %v, want Invalid", s.Said(), err)
		}
	}
}

func FuzzParseSchedule(f *testing.F) {
	for _, s := range []string{"always", "idle,22:00-07:00", "mon-fri 22:00-07:00,sat,sun 00:00-24:00", "24:00-00:00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSchedule(text)
		if err != nil {
			return
		}
		again, err := ParseSchedule(s.String())
		if err != nil || again.String() != s.String() {
			t.Fatalf("%q is written %q, read again as %q, %v", text, s, again, err)
		}
		now := at(25, 12, 0)
		if st := s.at(now, false); st.Open == (st.Reason != "") || !st.Opens.IsZero() && !st.Opens.After(now) {
			t.Fatalf("%q: %+v", text, st)
		}
	})
}
