package heartbeat

import (
	"bytes"
	"context"
	"slices"
	"sync"

	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
	"peercompute/pkg/wire"
)

// maxLives bounds how many former state files of a peer are remembered.
const maxLives = 8

// sight is the last that was seen of one peer's logs, and the last that it
// countersigned of ours.
type sight struct {
	Beat    []byte   `json:"beat,omitempty"`    // its newest heartbeat, as it signed it: evidence
	Lives   [][]byte `json:"lives,omitempty"`   // incarnations that came before the one in Beat
	Mine    []byte   `json:"mine,omitempty"`    // our heartbeat that it answered
	Counter []byte   `json:"counter,omitempty"` // its answer to that: a countersignature of our heads

	heart *wire.Heartbeat // what is in Beat
}

// finding is what a new heartbeat means for what was seen before.
type finding int

const (
	fits        finding = iota
	late                // sent before the newest one that is known
	contradicts         // the same state file, and its logs lost what they held
	anew                // another state file than before
	doubled             // a state file that another one had followed already
)

// judge compares a heartbeat with the newest one that is known.
func (s *sight) judge(h *wire.Heartbeat) finding {
	was := s.heart
	switch {
	case was == nil:
		return fits
	case h.Time <= was.Time:
		return late
	case h.Incarnation != was.Incarnation:
		if slices.ContainsFunc(s.Lives, func(l []byte) bool { return bytes.Equal(l, h.Incarnation[:]) }) {
			return doubled
		}
		return anew
	case behind(h.Trust, was.Trust) || behind(h.Audit, was.Audit):
		return contradicts
	}
	return fits
}

// behind reports whether a log that ends in now cannot be a continuation of one
// that ended in was.
func behind(now, was wire.Head) bool {
	return now.Seq < was.Seq || now.Seq == was.Seq && now.Hash != was.Hash
}

// witness keeps sights in the state file. What changed is written in one go now
// and then: losing the latest makes the evidence a little older, not wrong.
type witness struct {
	store *store.Store

	mu     sync.Mutex
	sights map[mesh.PeerID]*sight
	dirty  map[mesh.PeerID]bool
}

func openWitness(st *store.Store) (*witness, error) {
	w := &witness{store: st, sights: map[mesh.PeerID]*sight{}, dirty: map[mesh.PeerID]bool{}}
	err := st.View(func(tx *store.Tx) error {
		return tx.Each(store.Witness, nil, func(k, _ []byte) (bool, error) {
			s := &sight{}
			if _, err := tx.GetJSON(store.Witness, k, s); err != nil {
				return false, err
			}
			if len(s.Beat) > 0 {
				h, err := wire.OpenOwnHeartbeat(s.Beat, func(mesh.PeerID) bool { return true })
				if err != nil {
					return false, mesh.Errorf(mesh.Invalid, "what was seen of peer %s is damaged in the state file", mesh.PeerID(k)).
						WithHint("restore the state file from a backup").Because(err)
				}
				s.heart = h
			}
			w.sights[mesh.PeerID(k)] = s
			return true, nil
		})
	})
	return w, err
}

// saw judges a heartbeat and takes it in unless it contradicts. It returns the one
// before, if the logs have changed since or should have.
func (w *witness) saw(p mesh.PeerID, raw []byte, h *wire.Heartbeat) (f finding, earlier []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.sight(p)
	f = s.judge(h)
	if f == late {
		return f, nil
	}
	if s.heart != nil && (s.heart.Trust != h.Trust || s.heart.Audit != h.Audit || f == contradicts) && s.heart.Incarnation == h.Incarnation {
		earlier = s.Beat
	}
	if f == contradicts {
		return f, earlier
	}
	if f == anew || f == doubled {
		was := s.heart.Incarnation
		s.Lives = slices.DeleteFunc(s.Lives, func(l []byte) bool { return bytes.Equal(l, h.Incarnation[:]) })
		s.Lives = append(s.Lives, was[:])
		s.Lives = s.Lives[max(0, len(s.Lives)-maxLives):]
	}
	// A heartbeat that says nothing new replaces the one before in memory, so that
	// order is judged by the newest; on disk the older one proves the same.
	if s.heart == nil || s.heart.Trust != h.Trust || s.heart.Audit != h.Audit || s.heart.Incarnation != h.Incarnation {
		w.dirty[p] = true
	}
	s.Beat, s.heart = bytes.Clone(raw), h
	return f, earlier
}

// countersigned keeps a peer's answer to a heartbeat of ours.
func (w *witness) countersigned(p mesh.PeerID, mine, counter []byte, changed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.sight(p)
	if changed || s.Counter == nil {
		w.dirty[p] = true
	}
	s.Mine, s.Counter = mine, counter
}

func (w *witness) sight(p mesh.PeerID) *sight {
	s := w.sights[p]
	if s == nil {
		s = &sight{}
		w.sights[p] = s
	}
	return s
}

func (w *witness) rekey(from, to mesh.PeerID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.sights[from]; s != nil {
		w.sights[to] = s
		delete(w.sights, from)
		w.dirty[from], w.dirty[to] = true, true
	}
}

// keep forgets all peers but those.
func (w *witness) keep(peers []mesh.PeerID) {
	want := make(map[mesh.PeerID]bool, len(peers))
	for _, p := range peers {
		want[p] = true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for p := range w.sights {
		if !want[p] {
			delete(w.sights, p)
			w.dirty[p] = true
		}
	}
}

// flush writes what changed.
func (w *witness) flush(ctx context.Context) error {
	w.mu.Lock()
	rows := make(map[mesh.PeerID]*sight, len(w.dirty))
	for p := range w.dirty {
		rows[p] = nil
		if s := w.sights[p]; s != nil {
			row := *s
			rows[p] = &row
		}
	}
	clear(w.dirty)
	w.mu.Unlock()
	if len(rows) == 0 {
		return nil
	}
	return w.store.Update(ctx, func(tx *store.Tx) error {
		for p, s := range rows {
			if s == nil {
				if err := tx.Delete(store.Witness, []byte(p)); err != nil {
					return err
				}
			} else if err := tx.PutJSON(store.Witness, []byte(p), s); err != nil {
				return err
			}
		}
		return nil
	})
}

// Countersigned is the proof that a peer saw this node's logs end at some head.
type Countersigned struct {
	Peer  mesh.PeerID
	Beat  []byte // this node's heartbeat with the heads
	Pulse []byte // the peer's signed answer, bound to the bytes of Beat
}

func (w *witness) counters() []Countersigned {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []Countersigned
	for p, s := range w.sights {
		if s.Counter != nil {
			out = append(out, Countersigned{p, s.Mine, s.Counter})
		}
	}
	return out
}
