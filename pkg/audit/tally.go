package audit

import (
	"context"
	"time"

	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

// Bounds of what is counted instead of written.
const (
	refusalWindow = time.Minute // refusals of one actor by one rule: one entry, then a count
	usualWindow   = time.Hour   // admitted requests without an effect
	maxTallies    = 1024        // counted apart; what is beyond is counted together
	maxDue        = 1024        // entries that wait for Run
	flushEvery    = 10 * time.Second
)

// kind is what is counted together.
type kind struct{ actor, action, rule, outcome string }

// tally counts what came after an entry was written.
type tally struct {
	last  Entry
	more  int
	since time.Time
}

func (t *tally) window() time.Duration {
	if t.last.Outcome == Refused {
		return refusalWindow
	}
	return usualWindow
}

// others stands for all actors beyond maxTallies.
const others = "others"

// Often takes note of something that has no effect and may come often. It reports
// whether the caller is to write the entry with Append; if not, it is counted and
// the count is written later.
func (l *Log) Often(e Entry) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, first := l.count(e)
	return first
}

// Note is Often for a caller without a transaction: Run writes the entry soon.
func (l *Log) Note(e Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t, first := l.count(e)
	switch {
	case !first:
	case len(l.due) < maxDue:
		l.due = append(l.due, t.last)
		select {
		case l.wake <- struct{}{}:
		default:
		}
	default:
		t.more++
	}
}

// count finds the tally of an entry, and reports whether it is a new one's first.
func (l *Log) count(e Entry) (t *tally, first bool) {
	e.Time = l.cfg.Now()
	k := kind{e.Actor, e.Action, e.Rule, e.Outcome}
	if e.Outcome == Refused {
		k.action = "" // a rule is one kind of refusal, whatever was asked for
	}
	if t = l.tallies[k]; t == nil && len(l.tallies) >= maxTallies {
		k.actor, k.action, k.rule, e.Actor = others, "", "", others
		t = l.tallies[k]
	}
	if t == nil {
		t = &tally{last: e, since: e.Time}
		l.tallies[k] = t
		return t, true
	}
	t.last = e
	t.more++
	return t, false
}

// Run writes counts and what was noted, until ctx ends; then it writes the rest.
func (l *Log) Run(ctx context.Context) error {
	write := context.WithoutCancel(ctx) // what is taken out to be written is written
	t := time.NewTicker(flushEvery)
	defer t.Stop()
	for {
		select {
		case <-l.wake:
		case <-t.C:
		case <-ctx.Done():
			return l.flush(write, func(*tally) bool { return true })
		}
		now := l.cfg.Now()
		if err := l.flush(write, func(t *tally) bool { return now.Sub(t.since) >= t.window() || now.Before(t.since) }); err != nil {
			return err
		}
	}
}

// flush writes what was noted, and the counts of the tallies that over says are.
func (l *Log) flush(ctx context.Context, over func(*tally) bool) error {
	l.mu.Lock()
	out := l.due
	l.due = nil
	for k, t := range l.tallies {
		if !over(t) {
			continue
		}
		if t.more == 0 {
			delete(l.tallies, k)
			continue
		}
		e := t.last
		e.Count = t.more
		out = append(out, e)
		t.more, t.since = 0, l.cfg.Now()
	}
	l.mu.Unlock()
	if len(out) == 0 {
		return nil
	}
	err := l.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		for _, e := range out {
			if err := Append(tx, e); err != nil {
				return err
			}
		}
		return nil
	})
	if mesh.AsError(err) != nil && mesh.AsError(err).Rule == mesh.RuleDisk { // there may be room later
		l.mu.Lock()
		l.due = append(out, l.due...)
		l.due = l.due[:min(len(l.due), maxDue)]
		l.mu.Unlock()
		return nil
	}
	return err
}
