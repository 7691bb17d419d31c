package cron

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

// machine is a table that can be restarted, with a clock that the test sets.
type machine struct {
	*Table
	t      testing.TB
	path   string
	store  *store.Store
	now    time.Time
	mu     sync.Mutex
	queued map[string]int // by key: how often it was asked for
	order  []string
	fails  error
	notes  []string
}

func newMachine(t testing.TB) *machine {
	m := &machine{t: t, path: filepath.Join(t.TempDir(), store.FileName), now: time.Date(2027, 3, 1, 12, 0, 30, 0, time.UTC), queued: map[string]int{}}
	m.start()
	t.Cleanup(func() { m.store.Close() })
	return m
}

func (m *machine) start() {
	var err error
	if m.store, err = store.Open(m.path); err != nil {
		m.t.Fatal(err)
	}
	m.Table = New(Config{
		Store: m.store, Now: func() time.Time { return m.now }, Log: slog.New(slog.DiscardHandler), Submit: m.submit,
		Note: func(_ *store.Tx, action, detail string) error {
			m.notes = append(m.notes, action+" "+detail)
			return nil
		},
	})
}

func (m *machine) restart() {
	if err := m.store.Close(); err != nil {
		m.t.Fatal(err)
	}
	m.start()
}

func (m *machine) submit(_ context.Context, e Entry) (mesh.WorkloadID, error) {
	if m.fails != nil {
		return "", m.fails
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.queued[e.Key()]++
	if m.queued[e.Key()] == 1 {
		m.order = append(m.order, e.Name+" "+e.Due.Format("15:04"))
	}
	return mesh.WorkloadID("job-" + e.Due.Format("15:04")), nil
}

func somebody(t testing.TB) mesh.PeerID {
	t.Helper()
	id, err := mesh.ParsePeerID("12D3KooWQ7W1EzGSpCQQyvnp9ssH4RqDyuQ2Nm27sWtwo17dBSrh")
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func (m *machine) add(name, schedule string) Entry {
	m.t.Helper()
	e, err := m.Add(context.Background(), Entry{Name: name, Schedule: schedule, Peer: somebody(m.t)})
	if err != nil {
		m.t.Fatal(err)
	}
	return e
}

func (m *machine) get(name string) Entry {
	m.t.Helper()
	all, err := m.All()
	if err != nil {
		m.t.Fatal(err)
	}
	for _, e := range all {
		if e.Name == name {
			return e
		}
	}
	m.t.Fatalf("there is no %s", name)
	return Entry{}
}

func (m *machine) want(what string, order ...string) {
	m.t.Helper()
	if got, want := strings.Join(m.order, ", "), strings.Join(order, ", "); got != want {
		m.t.Errorf("%s: queued %q, want %q", what, got, want)
	}
}

func TestQueuedWhenDue(t *testing.T) {
	m, ctx := newMachine(t), context.Background()
	e := m.add("tick", "CRON_TZ=UTC */10 * * * *")
	if want := time.Date(2027, 3, 1, 12, 10, 0, 0, time.UTC); !e.Due.Equal(want) {
		t.Errorf("due %s, want %s", e.Due, want)
	}
	if pause := m.step(ctx); pause != maxPause {
		t.Errorf("nothing is due, and the pause is %s", pause)
	}
	m.want("before it is due")
	m.now = m.now.Add(9 * time.Minute) // 12:09:30
	if pause := m.step(ctx); pause != 30*time.Second {
		t.Errorf("due in 30 s, and the pause is %s", pause)
	}
	m.now = m.now.Add(30 * time.Second)
	m.step(ctx)
	m.step(ctx)
	m.want("once due", "tick 12:10")
	if e := m.get("tick"); e.Job != "job-12:10" || e.Last.Minute() != 10 || e.Due.Minute() != 20 || e.Missed != 0 {
		t.Errorf("afterwards it is %+v", e)
	}
}

// What was missed while the machine was off is made up for by one run.
func TestMissedTimesAreOneRun(t *testing.T) {
	m, ctx := newMachine(t), context.Background()
	m.add("tick", "CRON_TZ=UTC */10 * * * *")
	m.now = m.now.Add(65 * time.Minute) // 13:05:30; due were 12:10 … 13:00
	m.restart()
	m.step(ctx)
	m.step(ctx)
	m.want("after an hour off", "tick 13:00")
	if e := m.get("tick"); e.Missed != 5 || e.Due.Format("15:04") != "13:10" {
		t.Errorf("missed %d, due %s; want 5, 13:10", e.Missed, e.Due)
	}
}

// A failure is tried again, for the same time and under the same key, until there
// is a later time; then for that.
func TestFailuresAreTriedAgain(t *testing.T) {
	m, ctx := newMachine(t), context.Background()
	m.add("tick", "CRON_TZ=UTC */10 * * * *")
	m.now = m.now.Add(10 * time.Minute) // 12:10:30
	m.fails = mesh.Errorf(mesh.Unavailable, "bob does not answer")
	m.step(ctx)
	if e := m.get("tick"); !strings.Contains(e.Failure, "bob does not answer") || e.Job != "" {
		t.Errorf("after a failure it is %+v", e)
	}
	m.fails = nil
	m.step(ctx)
	m.want("at once after a failure")
	m.now = m.now.Add(2 * time.Second)
	m.step(ctx)
	m.want("soon after", "tick 12:10")
	if e := m.get("tick"); e.Failure != "" {
		t.Errorf("the failure is still said: %s", e.Failure)
	}
	m.fails = errors.New("again")
	m.now = m.now.Add(10 * time.Minute)
	m.step(ctx)
	m.now = m.now.Add(10 * time.Minute)
	m.fails = nil
	m.step(ctx)
	m.want("a time later", "tick 12:10", "tick 12:30")
	if e := m.get("tick"); e.Missed != 1 {
		t.Errorf("missed %d, want 1", e.Missed)
	}
}

func TestPaused(t *testing.T) {
	m, ctx := newMachine(t), context.Background()
	m.add("tick", "CRON_TZ=UTC */10 * * * *")
	if _, err := m.Pause(ctx, "tick", true); err != nil {
		t.Fatal(err)
	}
	m.now = m.now.Add(time.Hour)
	m.step(ctx)
	if _, err := m.Pause(ctx, "tick", false); err != nil {
		t.Fatal(err)
	}
	m.step(ctx)
	m.want("what was due while it was paused")
	m.now = m.now.Add(10 * time.Minute)
	m.step(ctx)
	m.want("afterwards", "tick 13:10")
	if _, err := m.Remove(ctx, "tick"); err != nil {
		t.Fatal(err)
	}
	m.now = m.now.Add(time.Hour)
	m.step(ctx)
	m.want("removed", "tick 13:10")
	if got, want := strings.Join(m.notes, "; "), "cron.create tick at CRON_TZ=UTC */10 * * * *; cron.pause tick; cron.resume tick; cron.remove tick"; got != want {
		t.Errorf("on record is %q, want %q", got, want)
	}
}

func TestBounds(t *testing.T) {
	m, ctx := newMachine(t), context.Background()
	m.add("n0", "@daily")
	if _, err := m.Add(ctx, Entry{Name: "n0", Schedule: "@daily", Peer: somebody(t)}); mesh.KindOf(err) != mesh.Conflict {
		t.Errorf("the same name: %v, want a conflict", err)
	}
	for i := 1; i < Max; i++ {
		m.add(fmt.Sprint("n", i), "@daily")
	}
	if _, err := m.Add(ctx, Entry{Name: "more", Schedule: "@daily", Peer: somebody(t)}); mesh.KindOf(err) != mesh.Quota {
		t.Errorf("one more than %d: %v, want a quota", Max, err)
	}
	for _, err := range []error{
		second(m.Add(ctx, Entry{Name: "Not a label", Schedule: "@daily", Peer: somebody(t)})), second(m.Add(ctx, Entry{Name: "x", Schedule: "sometimes", Peer: somebody(t)})),
		second(m.Add(ctx, Entry{Name: "x", Schedule: "@daily"})),
	} {
		if mesh.KindOf(err) != mesh.Invalid {
			t.Errorf("%v, want it invalid", err)
		}
	}
	if _, err := m.Pause(ctx, "nobody", true); mesh.KindOf(err) != mesh.NotFound {
		t.Errorf("pausing what is not there: %v", err)
	}
	if _, err := m.Remove(ctx, "nobody"); mesh.KindOf(err) != mesh.NotFound {
		t.Errorf("removing what is not there: %v", err)
	}
}

func second[A any](_ A, err error) error { return err }

func TestSchedules(t *testing.T) {
	for _, good := range []string{"30 4 * * mon-fri", "*/5 * * * *", "@hourly", "@every 1m", "@every 36h", "CRON_TZ=Europe/Lisbon 0 6 * * *", " 0 0 29 2 * "} {
		if _, err := ParseSchedule(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "sometimes", "* * * *", "* * * * * *", "@every 30s", "@every -1h", "0 0 30 2 *", "TZ=UTC", "CRON_TZ=", "TZ=Nowhere/Else 0 6 * * *", strings.Repeat("1,", 100) + "1 * * * *"} {
		if _, err := ParseSchedule(bad); mesh.KindOf(err) != mesh.Invalid {
			t.Errorf("%q: %v, want it invalid", bad, err)
		}
	}
}

// Whatever the clock, failures and restarts do: each time is queued at most once (a
// second attempt has the same key), times never go back, and what is due is queued in
// the end.
func TestAgainstAModel(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		m, ctx := newMachine(t), context.Background()
		m.add("a", "CRON_TZ=UTC */7 * * * *")
		m.add("b", "@every 13m")
		for range rapid.IntRange(1, 12).Draw(r, "steps") {
			m.now = m.now.Add(time.Duration(rapid.IntRange(-600, 3600).Draw(r, "seconds")) * time.Second)
			m.fails = nil
			if rapid.IntRange(0, 3).Draw(r, "fails") == 0 {
				m.fails = errors.New("no")
			}
			if rapid.Bool().Draw(r, "restart") {
				m.restart()
			}
			m.step(ctx)
		}
		m.fails = nil
		m.now = m.now.Add(2 * time.Hour)
		m.step(ctx)
		for key, n := range m.queued {
			if n > 1 {
				r.Fatalf("%s was queued %d times", key, n)
			}
		}
		for _, e := range []Entry{m.get("a"), m.get("b")} {
			if e.Last.After(m.now) || m.now.Sub(e.Last) > 13*time.Minute || !e.Due.After(m.now) {
				r.Fatalf("at %s, %s was last queued for %s and is due %s", m.now, e.Name, e.Last, e.Due)
			}
		}
	})
}

func FuzzParseSchedule(f *testing.F) {
	for _, s := range []string{"30 4 * * mon-fri", "@every 90m", "TZ=UTC 1 1 1 1 *", "CRON_TZ=", "@every 1ns", "*/0 * * * *", "1-99999999999 * * * *"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSchedule(text)
		if err != nil {
			if mesh.KindOf(err) != mesh.Invalid {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		first := s.Next(time.Now())
		if next := s.Next(first); first.IsZero() || next.Sub(first) < leastPeriod {
			t.Errorf("%q is due at %s and then at %s", text, first, next)
		}
	})
}
