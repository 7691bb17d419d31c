// Package cron keeps the jobs that are queued again and again, and queues each when
// it is due. What it keeps is on disk; when a machine was off, all that was missed
// is made up for by one run. It knows nothing of how a job is queued.
package cron

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

// Max bounds how many there are.
const Max = 100

const (
	atOnce        = 4 // that are queued at the same time
	submitTimeout = time.Minute
	maxPause      = time.Minute // the clock may have been set
	maxSkipped    = 100_000     // times that were missed, counted one by one
)

// Entry is one of them.
type Entry struct {
	Name     string      `json:"name"`
	ID       string      `json:"id"` // tells it from a former one of that name
	Schedule string      `json:"schedule"`
	Peer     mesh.PeerID `json:"peer"`
	Spec     mesh.Spec   `json:"spec"`
	Input    string      `json:"input,omitempty"`
	Made     time.Time   `json:"made"`
	Paused   bool        `json:"paused,omitempty"`
	Due      time.Time   `json:"due"` // the next time

	Last    time.Time       `json:"last,omitzero"` // the latest time for which it was queued
	Job     mesh.WorkloadID `json:"job,omitempty"` // and as what
	Missed  int             `json:"missed,omitempty"`
	Failure string          `json:"failure,omitempty"` // why the latest attempt came to nothing
}

// Key names the run of a time, so that trying it twice queues one job.
func (e Entry) Key() string { return fmt.Sprintf("cron/%s/%d", e.ID, e.Due.Unix()) }

// Config is what New needs.
type Config struct {
	Store  *store.Store
	Now    func() time.Time
	Log    *slog.Logger
	Submit func(ctx context.Context, e Entry) (mesh.WorkloadID, error) // queues e under e.Key
	// Note writes down what a person changed, in the same transaction; may be nil.
	Note func(tx *store.Tx, action, detail string) error
}

// Table is all of them.
type Table struct {
	cfg    Config
	wake   chan struct{}
	failed map[string]attempt // by ID; of Run's goroutine
}

// attempt is when something that failed is tried again.
type attempt struct {
	count int
	next  time.Time
}

// New checks the configuration and starts nothing.
func New(cfg Config) *Table {
	if cfg.Note == nil {
		cfg.Note = func(*store.Tx, string, string) error { return nil }
	}
	return &Table{cfg: cfg, wake: make(chan struct{}, 1), failed: map[string]attempt{}}
}

// Add takes in a new one, whose Name, Schedule, Peer, Spec and Input are set.
func (t *Table) Add(ctx context.Context, e Entry) (Entry, error) {
	if !mesh.ValidLabel(e.Name) {
		return Entry{}, mesh.Errorf(mesh.Invalid, "the name %q is not a DNS label of at most %d characters (a-z, 0-9, inner -)", e.Name, mesh.MaxName)
	}
	if e.Peer == "" {
		return Entry{}, mesh.Errorf(mesh.Invalid, "a cron job needs a peer that it is queued on")
	}
	s, err := ParseSchedule(e.Schedule)
	if err != nil {
		return Entry{}, err
	}
	var id [6]byte
	rand.Read(id[:])
	now := t.cfg.Now()
	e.ID, e.Made, e.Due = hex.EncodeToString(id[:]), now.UTC(), s.Next(now).UTC()
	err = t.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		if tx.Get(store.Crons, []byte(e.Name)) != nil {
			return mesh.Errorf(mesh.Conflict, "there is a cron job %q already", e.Name).WithHint("remove it first: peerctl cron rm %s", e.Name)
		}
		if tx.Count(store.Crons) >= Max {
			return mesh.Errorf(mesh.Quota, "there are %d cron jobs already", Max).WithHint("remove some: peerctl cron rm")
		}
		if err := put(tx, e); err != nil {
			return err
		}
		return t.cfg.Note(tx, "cron.create", e.Name+" at "+e.Schedule)
	})
	t.poke()
	return e, err
}

// Pause makes one wait, or go on; what was due meanwhile is not made up for.
func (t *Table) Pause(ctx context.Context, name string, paused bool) (Entry, error) {
	action := "cron.resume"
	if paused {
		action = "cron.pause"
	}
	return t.change(ctx, name, action, func(e *Entry) error {
		s, err := ParseSchedule(e.Schedule)
		if err == nil && e.Paused && !paused {
			e.Due, e.Failure = s.Next(t.cfg.Now()).UTC(), ""
		}
		e.Paused = paused
		return err
	})
}

// Remove drops one; its jobs stay.
func (t *Table) Remove(ctx context.Context, name string) (e Entry, err error) {
	err = t.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		if e, err = get(tx, name); err != nil {
			return err
		}
		if err := tx.Delete(store.Crons, []byte(name)); err != nil {
			return err
		}
		return t.cfg.Note(tx, "cron.remove", name)
	})
	return e, err
}

func (t *Table) change(ctx context.Context, name, action string, f func(*Entry) error) (e Entry, err error) {
	err = t.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		if e, err = get(tx, name); err != nil {
			return err
		}
		if err := f(&e); err != nil {
			return err
		}
		if err := put(tx, e); err != nil || action == "" {
			return err
		}
		return t.cfg.Note(tx, action, name)
	})
	t.poke()
	return e, err
}

// All lists them by name.
func (t *Table) All() (out []Entry, err error) {
	err = t.cfg.Store.View(func(tx *store.Tx) error { out, err = Each(tx); return err })
	return out, err
}

// Each reads them all, by name.
func Each(tx *store.Tx) (out []Entry, err error) {
	err = tx.Each(store.Crons, nil, func(k, _ []byte) (bool, error) {
		e, err := get(tx, string(k))
		out = append(out, e)
		return err == nil, err
	})
	slices.SortFunc(out, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	return out, err
}

func get(tx *store.Tx, name string) (e Entry, err error) {
	ok, err := tx.GetJSON(store.Crons, []byte(name), &e)
	if err == nil && !ok {
		err = mesh.Errorf(mesh.NotFound, "there is no cron job %q", name).WithHint("list them with: peerctl cron ls")
	}
	return e, err
}

func put(tx *store.Tx, e Entry) error { return tx.PutJSON(store.Crons, []byte(e.Name), e) }

func (t *Table) poke() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// Run queues what is due until ctx ends.
func (t *Table) Run(ctx context.Context) error {
	for {
		pause := t.step(ctx)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-t.wake:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return nil
		}
	}
}

// step queues all that is due now, and returns how long there is nothing to do.
func (t *Table) step(ctx context.Context) time.Duration {
	all, err := t.All()
	if err != nil {
		t.cfg.Log.Error("cannot read the cron jobs", "err", err)
		return maxPause
	}
	now, pause := t.cfg.Now(), maxPause
	ended := make([]error, len(all))
	var g errgroup.Group
	g.SetLimit(atOnce)
	var tried []int
	for i, e := range all {
		at := e.Due
		if f := t.failed[e.ID].next; f.After(at) {
			at = f
		}
		switch {
		case e.Paused:
		case at.After(now):
			pause = min(pause, at.Sub(now))
		default:
			tried = append(tried, i)
			g.Go(func() error { ended[i] = t.run(ctx, e, now); return nil })
		}
	}
	_ = g.Wait()
	for _, i := range tried {
		id := all[i].ID
		if ended[i] == nil {
			delete(t.failed, id)
		} else {
			f := t.failed[id]
			t.failed[id] = attempt{f.count + 1, now.Add(min(time.Second<<min(f.count, 8), time.Minute))}
		}
		pause = min(pause, time.Second)
	}
	return pause
}

// run queues e for the latest of the times that are due.
func (t *Table) run(ctx context.Context, e Entry, now time.Time) error {
	s, err := ParseSchedule(e.Schedule)
	if err != nil {
		return err
	}
	skipped := 0
	for next := s.Next(e.Due.Local()); !next.After(now) && skipped < maxSkipped; next = s.Next(next) {
		e.Due = next.UTC()
		skipped++
	}
	ctx, cancel := context.WithTimeout(ctx, submitTimeout)
	defer cancel()
	job, failure := t.cfg.Submit(ctx, e)
	_, err = t.change(context.WithoutCancel(ctx), e.Name, "", func(now *Entry) error {
		if now.ID != e.ID || now.Due.After(e.Due) {
			return errGone
		}
		if failure != nil {
			now.Failure = mesh.AsError(failure).Error()
			now.Missed, now.Due = now.Missed+skipped, e.Due
			return nil
		}
		now.Last, now.Job, now.Failure = e.Due, job, ""
		now.Missed, now.Due = now.Missed+skipped, s.Next(t.cfg.Now()).UTC()
		return nil
	})
	if failure != nil {
		t.cfg.Log.Warn("cannot queue a cron job; trying again", "name", e.Name, "err", failure)
		return failure
	}
	if err != nil && err != errGone {
		t.cfg.Log.Error("cannot write down that a cron job was queued", "name", e.Name, "err", err)
		return err
	}
	return nil
}

var errGone = mesh.Errorf(mesh.NotFound, "the cron job was removed or changed meanwhile")
