package audit

import (
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"

	"peercompute/pkg/store"
)

// Config is what New needs.
type Config struct {
	Store *store.Store
	Now   func() time.Time
}

// Log reads the audit log of one node, and counts what comes too often to be
// written each time.
type Log struct {
	cfg  Config
	wake chan struct{}

	mu      sync.Mutex
	tallies map[kind]*tally
	due     []Entry // to be written by Run
}

// New prepares a log; nothing runs before Run.
func New(cfg Config) *Log {
	return &Log{cfg: cfg, wake: make(chan struct{}, 1), tallies: map[kind]*tally{}}
}

// Head names the newest entry.
func (l *Log) Head() (h Head, err error) {
	err = l.cfg.Store.View(func(tx *store.Tx) error { h, err = readHead(tx); return err })
	return h, err
}

// Standing is what a log says about an earlier head.
type Standing int

// The standings.
const (
	Foreign Standing = iota // the head is not of this log: it was rewritten, or rolled back
	Held                    // the head is part of the chain
	Dropped                 // the head is older than what is kept; nothing can be said
)

// keptAtLeast is how many entries outlast an honest cut.
const keptAtLeast = MaxEntries - cutAtOnce - 2

// Standing says whether an earlier head is still part of the log. An honest log
// drops entries only once many others have followed: whoever heard of a head
// lately need not take Dropped for an answer.
func (l *Log) Standing(h Head) (s Standing, err error) {
	err = l.cfg.Store.View(func(tx *store.Tx) error {
		s = Foreign
		if h == (Head{}) {
			s = Held // of an empty log, which every log began as
			return nil
		}
		now, err := readHead(tx)
		v := tx.Get(store.Audit, key(h.Seq))
		switch {
		case err != nil:
		case len(v) >= sha256.Size && Hash(v[:sha256.Size]) == h.Hash:
			s = Held
		case v == nil && h.Seq < now.Seq && now.Seq-h.Seq >= keptAtLeast:
			s = Dropped
		}
		return err
	})
	return s, err
}

// soonestDrop is how long an honest node takes at least to write so much that an
// entry goes: its disk would have to take more than 6,000 entries a second.
const soonestDrop = 10 * time.Second

// Contains reports whether an earlier head, which was this log's at that time, still
// is part of it. That it was dropped since is no answer for one of moments ago.
func (l *Log) Contains(h Head, at time.Time) (bool, error) {
	s, err := l.Standing(h)
	if err != nil || s != Dropped {
		return s == Held, err
	}
	return l.cfg.Now().Sub(at).Abs() >= soonestDrop, nil
}

// Read returns up to most entries, from the one numbered from on. What cannot be
// read is an error; whether the chain holds only Verify says.
func (l *Log) Read(from uint64, most int) ([]Line, error) {
	var out []Line
	err := l.cfg.Store.View(func(tx *store.Tx) error {
		return tx.Each(store.Audit, key(from), func(k, v []byte) (bool, error) {
			if len(out) == most {
				return false, nil
			}
			if len(k) != 8 || len(v) < sha256.Size {
				return false, broken(from+uint64(len(out)), "it cannot be read")
			}
			e, err := decode(v[sha256.Size:])
			if err != nil {
				return false, broken(binary.BigEndian.Uint64(k), "it cannot be read")
			}
			out = append(out, Line{e, Hash(v[:sha256.Size])})
			return true, nil
		})
	})
	return out, err
}
