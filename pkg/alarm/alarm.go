// Package alarm keeps what the owner of this machine has to look at: things that
// no honest node or disk does, such as a log that lost what it once held. Alarms
// outlive restarts and stay until a person dismisses them. The package raises
// nothing by itself and acts on nothing.
package alarm

import (
	"context"
	"encoding/binary"
	"slices"
	"strings"
	"sync"
	"time"

	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
)

// Max bounds the alarms that are kept; the oldest give way.
const Max = 128

// again is how often a repetition of an alarm is written down.
const again = time.Hour

// maxText bounds an alarm's text, in bytes.
const maxText = 512

// Alarm is one thing to look at. A second one of the same kind about the same
// peer counts as a repetition.
type Alarm struct {
	ID    uint64      `json:"id"`
	Kind  string      `json:"kind"` // stable name, such as "peer.rolled-back"
	Peer  mesh.PeerID `json:"peer,omitempty"`
	Text  string      `json:"text"`
	Hint  string      `json:"hint,omitempty"`
	First time.Time   `json:"first"`
	Last  time.Time   `json:"last"`
	Count int         `json:"count"`
}

// Book holds the alarms that nobody has dismissed.
type Book struct {
	store *store.Store
	now   func() time.Time

	writing sync.Mutex // one change at a time

	mu     sync.Mutex
	alarms []Alarm // by ID
	last   uint64
	on     []func(Alarm)
}

// Open reads what was left.
func Open(st *store.Store, now func() time.Time) (*Book, error) {
	b := &Book{store: st, now: now}
	err := st.View(func(tx *store.Tx) error {
		return tx.Each(store.Alarms, nil, func(k, _ []byte) (bool, error) {
			var a Alarm
			_, err := tx.GetJSON(store.Alarms, k, &a)
			b.alarms = append(b.alarms, a)
			b.last = max(b.last, a.ID)
			return true, err
		})
	})
	return b, err
}

// On registers a function that hears of each new alarm, once. It must not block.
func (b *Book) On(f func(Alarm)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.on = append(b.on, f)
}

// All lists the alarms, the oldest first.
func (b *Book) All() []Alarm {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.alarms)
}

func key(id uint64) []byte { return binary.BigEndian.AppendUint64(nil, id) }

// Raise records an alarm durably.
func (b *Book) Raise(ctx context.Context, a Alarm) error {
	b.writing.Lock()
	defer b.writing.Unlock()
	now := b.now().UTC()
	a.Text, a.Hint = clip(a.Text), clip(a.Hint)
	b.mu.Lock()
	at := slices.IndexFunc(b.alarms, func(have Alarm) bool { return have.Kind == a.Kind && have.Peer == a.Peer })
	if at >= 0 {
		have := b.alarms[at]
		stale := now.Sub(have.Last) >= again
		b.alarms[at].Count++
		if stale {
			b.alarms[at].Last = now
		}
		have = b.alarms[at]
		b.mu.Unlock()
		if !stale {
			return nil
		}
		return b.store.Update(ctx, func(tx *store.Tx) error { return tx.PutJSON(store.Alarms, key(have.ID), have) })
	}
	a.ID, a.First, a.Last, a.Count = b.last+1, now, now, 1
	var drop []uint64
	for i := 0; len(b.alarms)-i >= Max; i++ {
		drop = append(drop, b.alarms[i].ID)
	}
	b.mu.Unlock()
	err := b.store.Update(ctx, func(tx *store.Tx) error {
		for _, id := range drop {
			if err := tx.Delete(store.Alarms, key(id)); err != nil {
				return err
			}
		}
		return tx.PutJSON(store.Alarms, key(a.ID), a)
	})
	if err != nil {
		return err
	}
	b.mu.Lock()
	b.last = a.ID
	b.alarms = append(slices.DeleteFunc(b.alarms, func(have Alarm) bool { return slices.Contains(drop, have.ID) }), a)
	fs := b.on
	b.mu.Unlock()
	for _, f := range fs {
		f(a)
	}
	return nil
}

// Dismiss forgets an alarm that a person has seen. It may come again.
func (b *Book) Dismiss(ctx context.Context, id uint64) (Alarm, error) {
	b.writing.Lock()
	defer b.writing.Unlock()
	b.mu.Lock()
	at := slices.IndexFunc(b.alarms, func(a Alarm) bool { return a.ID == id })
	var a Alarm
	if at >= 0 {
		a = b.alarms[at]
	}
	b.mu.Unlock()
	if at < 0 {
		return a, mesh.Errorf(mesh.NotFound, "there is no alarm %d", id).WithHint("list them with: peerctl alarms")
	}
	if err := b.store.Update(ctx, func(tx *store.Tx) error { return tx.Delete(store.Alarms, key(id)) }); err != nil {
		return a, err
	}
	b.mu.Lock()
	b.alarms = slices.DeleteFunc(b.alarms, func(have Alarm) bool { return have.ID == id })
	b.mu.Unlock()
	return a, nil
}

func clip(s string) string {
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "")
	}
	return s
}
